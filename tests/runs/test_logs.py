"""Logs: what TensorBoard and metrics.jsonl hold, and a full disk."""

import io
import json
import struct

import pytest
import rich.console
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from jaxclr.errors import UserError
from jaxclr.runs.folder import RunFolder
from jaxclr.runs.logs import Logs


def open_logs(folder, start=0):
    return Logs(
        RunFolder(folder), start=start, steps=9, console=rich.console.Console(file=io.StringIO())
    )


def events(path):
    """The events in a file of TensorBoard, each between its length and its checksum."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_tensorboard_gets_the_numbers_at_once_and_metrics_all(tmp_path):
    with open_logs(tmp_path, start=2) as logs:
        logs.write(3, {"loss": 1.5, "count": 2, "spectrum": [1.0, 2.0], "warning": "flat"})
        version, session, step = events(next((tmp_path / "tensorboard").iterdir()))
    assert version.file_version == "brain.Event:2"
    assert (session.step, session.session_log.status) == (3, SessionLog.START)
    assert step.step == 3 and {value.tag: value.simple_value for value in step.summary.value} == {
        "loss": 1.5,
        "count": 2,
    }
    line = {"step": 3, "loss": 1.5, "count": 2, "spectrum": [1.0, 2.0], "warning": "flat"}
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == line


def test_the_file_is_that_of_tensorboardx(tmp_path):
    with open_logs(tmp_path) as logs:
        logs.write(1, {"loss": 1.0})
    (ours,) = (tmp_path / "tensorboard").iterdir()
    writer = RecordWriter(str(tmp_path / "theirs"))
    for event in events(ours):
        writer.write(event.SerializeToString())
    writer.close()
    assert (tmp_path / "theirs").read_bytes() == ours.read_bytes()


def test_a_full_disk_is_told_by_the_write_that_meets_it(tmp_path, monkeypatch):
    with open_logs(tmp_path) as logs, open("/dev/full", "wb", buffering=0) as full:
        logs._events.close()
        monkeypatch.setattr(logs, "_events", full)
        with pytest.raises(
            UserError, match=f"{tmp_path} cannot be written: No space left on device"
        ):
            logs.write(1, {"loss": 1.0})


def test_lines_of_later_steps_are_dropped(tmp_path):
    lines = ['{"step": 1}', '{"step": 2}', '{"step": 3}', '{"ste']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    with open_logs(tmp_path, start=2):
        pass
    kept = [
        json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert kept == [1, 2]
