"""Files of a run that are damaged or hostile: a sentence with the file's name, and no more."""

import json
import os
import pathlib

import pytest
from tiny import tiny_config

import jaxclr
from jaxclr.errors import UserError
from jaxclr.runs import config as configs
from jaxclr.runs import readers, seals
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.files import locked, write_atomically
from jaxclr.runs.folder import RunFolder

NOT_JSON = {
    "list": b"[]",
    "null": b"null",
    "nothing": b"",
    "binary": bytes(range(256)),
    "UTF-16": '{"step": 1}'.encode("utf-16"),
    "deep": b"[" * 100_000,
    "deep and closed": b'{"a":' * 100 + b"1" + b"}" * 100,
    "5,000 digits": b'{"step": ' + b"9" * 5000 + b"}",
    "4,000 digits": b'{"step": ' + b"9" * 4000 + b"}",
    "text for a number": b'{"step": "5"}',
    "true for a number": b'{"step": true}',
    "half a surrogate": b'{"step": "\\ud800"}',
    "NUL": b'{"\\u0000": 5}',
}
READERS = {
    "config.json": readers.read_description,
    "evaluation.json": readers.read_evaluation,
    "bad_step.json": readers.read_bad_step,
}
LINES = {
    b"[]": "it holds a list",
    b'{"loss": 1.0}': "it has no step",
    b'{"step": "2", "loss": 1.0}': "it has no step",
    b'{"step": 2, "loss": "1.0"}': "loss is text",
    b'{"step": 2, "spectrum": []}': "spectrum is a list",
    b'{"step": 2, "spectrum": [1]}': "spectrum is a list",  # of another length than before
    b'{"step": 2, "warning": 5}': "warning is a number",
    b'{"step": 2, "loss": 1' + b"0" * 400 + b"}": "loss is a number that is too large",
    b'{"step": 2, "lo': "it is not JSON",
    b"\xff\xfe": "it is not JSON",
}
EVALUATIONS = (
    {"features": []},
    {"features": {"trained": {"kNN 20": {"mean": "x"}}}},
    {"features": {"trained": {"kNN 20": {}}}},
    {"protocols": {"knn": {"step": 1, "percent": True, "figures": {"a": {"mean": None}}}}},
    {"protocols": {"knn": {"step": 1.5, "percent": True, "figures": {}}}},
    {"train_images": 10**400},
)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", NOT_JSON)
def test_json_that_is_none_or_of_other_types(tmp_path, name, kind):
    path = tmp_path / name
    path.write_bytes(NOT_JSON[kind])
    with pytest.raises(UserError, match=name) as refused:
        READERS[name](path)
    assert len(str(refused.value)) < 500 and "\n" not in str(refused.value)


@pytest.mark.parametrize("tree", EVALUATIONS, ids=lambda tree: json.dumps(tree)[:60])
def test_evaluations_of_other_types(tmp_path, tree):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match="evaluation.json"):
        readers.read_evaluation(path)
    # It is replaced whole, as if it were missing.
    RunFolder(tmp_path).write_protocol("knn", {"step": 3, "percent": True, "figures": {}})
    assert readers.read_evaluation(path).protocols["knn"].step == 3


@pytest.mark.parametrize("line", LINES, ids=lambda line: ascii(line)[:40])
def test_a_damaged_line_is_left_out_with_a_note(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = b'{"step": 1, "loss": 2.0, "spectrum": [2, 1], "warning": "x"}\n'
    path.write_bytes(good + line + b"\n\n" + good.replace(b'"step": 1', b'"step": 0'))
    found = readers.read_metrics(path)
    assert [line["step"] for line in found.lines] == [0, 1]
    assert found.note == f"{path} is damaged in line 2: {LINES[line]}; the rest is used."
    path.write_bytes(good + line)  # of a run in progress, the last line may be incomplete
    assert len(readers.read_metrics(path).lines) == 1
    path.write_bytes(b'{"loss": []}\n' + b"\xff\n")
    with pytest.raises(UserError, match="metrics.jsonl has no line that can be read"):
        readers.read_metrics(path)
    with pytest.raises(UserError, match="Move it away"):
        RunFolder(tmp_path).lines()


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**42)
    names = ("pipe", "device", "loop", "", "nothing", "sparse", "x" * 300, "a\0b", "file/inside")
    for name in names:
        with pytest.raises(UserError) as refused:
            readers.read_bytes(tmp_path / name)
        assert str(tmp_path) in str(refused.value)
    assert [readers.is_there(tmp_path / name) for name in names[:6]] == [True] * 4 + [False, True]
    assert not readers.is_there(tmp_path / "file" / "inside")


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "lstat", refuse)  # root may read everything
    with pytest.raises(UserError, match=r"config.json cannot be read: Permission denied\."):
        jaxclr.Run(tmp_path)


CONFIGS = {
    "no method": lambda tree: tree.pop("method"),
    "a method of no type": lambda tree: tree.update(method={"type": 5}),
    "a module that is no part": lambda tree: tree.update(optimizer={"function": "jaxclr.api:os"}),
    "an absurd number": lambda tree: tree.update(epochs=10**30),
    "a number of no float": lambda tree: tree.update(clip_norm=10**400),
    "not a number": lambda tree: tree.update(warmup_epochs=float("nan")),
    "data as a list": lambda tree: tree.update(data=[]),
    "a field in a field": lambda tree: tree["encoder"].update(widths={"a": [1]}),
    "version 0.1": lambda tree: (tree.pop("jaxclr"), tree.update(method={"type": ["SimClr"]})),
    "an experiment elsewhere": lambda tree: tree.update(
        experiment={"file": "../../evil.py", "method": None}, optimizer={"session": "a lambda"}
    ),
    "an experiment that is none": lambda tree: tree.update(
        experiment=5, optimizer={"session": "a lambda"}
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_configurations_of_other_types(tmp_path, kind):
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    tree = json.loads(configs.to_json(tiny_config()))
    CONFIGS[kind](tree)
    (folder / "config.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match="config.json"):
        RunFolder(folder).config()


def test_links_are_not_followed_when_files_are_written(tmp_path):
    other = tmp_path / "other"
    other.write_text("kept")
    for name in (".report.html.part", "report.html", ".lock"):
        (tmp_path / name).symlink_to(other)
    write_atomically(tmp_path / "report.html", "new")
    assert (tmp_path / "report.html").read_text() == "new"
    with pytest.raises(UserError, match="cannot be written"), locked(tmp_path / ".lock"):
        pass
    assert other.read_text() == "kept"


@pytest.mark.parametrize("seal", [b"[" * 100_000, b"[]", b'{"a": 5}', b'{"a": [1, 2, 3]}', None])
def test_a_seal_that_is_none_means_damage(tmp_path, seal):
    (tmp_path / "state").mkdir()
    assert seals.unreadable(tmp_path) is None
    if seal is None:
        os.mkfifo(tmp_path / seals.NAME)
        assert seals.unreadable(tmp_path) == f"{seals.NAME} is not a regular file"
    else:
        (tmp_path / seals.NAME).write_bytes(seal)
    assert seals.damage(tmp_path)


def test_metadata_beyond_memory_are_not_read(tmp_path):
    with (tmp_path / "_CHECKPOINT_METADATA").open("wb") as file:
        file.truncate(2**42)
    assert seals.unreadable(tmp_path) == f"_CHECKPOINT_METADATA has {2**42} bytes"
    with pytest.raises(
        UserError, match=r"_CHECKPOINT_METADATA has \d+ bytes. Remove or restore it"
    ):
        Checkpoints(tmp_path)
