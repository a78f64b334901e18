"""Runs in buckets: the bits of a local run, whatever fails and whenever it ends."""

import contextlib
import io
import json
import os

import botocore.exceptions
import buckets as servers
import gcsfs.retry
import google.auth.exceptions
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from tiny import tiny_config

import jaxclr
from jaxclr import buckets as clients
from jaxclr import training
from jaxclr.data import Data
from jaxclr.errors import UserError
from jaxclr.paths import expanded
from jaxclr.runs import buckets, files, leases, readers, seals, transfer
from jaxclr.runs.checkpoints import Checkpoints, read_digests
from jaxclr.runs.digests import digests
from jaxclr.runs.folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_program")
QUIET = rich.console.Console(file=io.StringIO())
STEPS = 4
SILENT = lambda text: None


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    np.savez(path, images=images, labels=np.arange(40) % 2)
    data = Data(f"npz:{path}", mean=(0.5,), std=(0.3,), test_fraction=0.2)
    return training.open_session(tiny_config(data=data, steps=STEPS, log_every=1))


def contents(run):
    lines = map(json.loads, run.metrics.read_text().splitlines())
    clocked = lambda name: name == "images_per_second" or name.endswith("_seconds")
    lines = [{k: v for k, v in line.items() if not clocked(k)} for line in lines]
    return read_digests(run.checkpoints, STEPS), [line for line in lines if len(line) > 1]


@pytest.fixture(scope="module")
def local(session, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("runs") / "local")
    run.create(session.config, overwrite=False)
    training.train(session, run, console=QUIET)
    return contents(run)


def test_a_resumed_run_has_the_bits_of_a_local_one(session, local, bucket, faults):
    run = RunFolder(expanded(bucket))
    faults.seen.clear()
    with run.locked():
        run.create(session.config, overwrite=False)
        training.train(session, run, console=QUIET, stop_after=2)
    assert run.newest_step == 2
    if bucket.startswith("s3"):  # requests of gs:// do not have the name in their path
        first = lambda name: next(i for i, path in enumerate(faults.seen) if path.endswith(name))
        assert first("metrics.jsonl") < first("checkpoints/2/commit_success.txt")
    with run.locked():
        training.train(session, run, console=QUIET)
    assert contents(run) == local
    assert files.names(run.tensorboard) and not readers.is_there(run.folder / ".lock")
    opened = jaxclr.Run(bucket)
    assert list(opened.metrics()["step"]) == [1, 2, 3, 4] and opened.config == session.config
    opened.export(f"{bucket}/exported", "stablehlo")
    assert opened.embed(f"{bucket}/rows.npz") == {"train": 32, "test": 8}
    with expanded(f"{bucket}/rows.npz").open("rb") as file, np.load(file) as rows:
        again = opened.load().encode(session.dataset.test.examples)
        np.testing.assert_allclose(rows["embeddings"][32:], again, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="rows.npz exists. Replace it with --overwrite"):
        opened.embed(f"{bucket}/rows.npz")
    assert (run.folder / "exported").stat().length
    with run.locked(), pytest.raises(UserError, match="holds a run already"):
        run.create(session.config, overwrite=False)


STATES = {
    step: {"kernel": jnp.arange(60.0) / step, "step": jnp.int32(step), "key": jax.random.key(step)}
    for step in (1, 2)
}


def live(folder):
    """Goes on from the newest checkpoint to step 2, as a run does; returns where it began."""
    with files.locked(folder / ".lock"), Checkpoints(folder / "checkpoints", keep=1) as checkpoints:
        newest = checkpoints.latest or 0
        if newest:
            state = checkpoints.restore(STATES[1], say=pytest.fail)
            assert digests(state) == digests(STATES[newest])
            assert int(readers.read_bytes(folder / "metrics.jsonl")) >= newest
        for step in range(newest + 1, 3):
            files.write_atomically(folder / "metrics.jsonl", str(step))
            checkpoints.save(STATES[step], step)
            checkpoints.wait()
        return newest


@pytest.fixture
def faults(monkeypatch):
    """The faults of the servers, of which none is left at the end."""
    yield servers.FAULTS
    servers.FAULTS.failing, servers.FAULTS.writes = 0.0, None


@pytest.mark.parametrize("points", [2, pytest.param(10**6, marks=pytest.mark.full)])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's coroutines
def test_an_end_between_any_two_writes(bucket, points, faults, capfd):
    faults.seen.clear()
    assert live(expanded(bucket)) == 0
    writes, began = len(faults.seen), set()
    assert writes > 20
    for count in range(1, writes, max(1, writes // points)):
        folder = expanded(f"{bucket}-{count}")
        faults.writes = count
        with contextlib.suppress(UserError):
            live(folder)
        faults.writes = None
        began.add(live(folder))
        assert files.complete_steps(folder / "checkpoints") == [2]
        assert read_digests(folder / "checkpoints", 2) == digests(STATES[2])
    assert began >= ({0, 1} if points > 2 else {0})
    capfd.readouterr()  # Orbax's threads print


def test_a_damaged_checkpoint_is_set_aside(bucket, faults):
    folder = expanded(bucket)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        for step in (1, 2):
            checkpoints.save(STATES[step], step)
    damaged = next(
        name for name in buckets.files(folder / "checkpoints" / "2") if "ocdbt.process_0/d/" in name
    )
    path = folder / "checkpoints" / "2" / damaged
    content = readers.read_bytes(path)
    files.write_atomically(path, content[:-1] + bytes([content[-1] ^ 1]))
    said = []
    faults.seen.clear()
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = checkpoints.restore(STATES[1], say=said.append)
        assert digests(state) == digests(STATES[1])
        copied = [path for path in faults.seen if "damaged-2/" in path]
        assert copied[-1].endswith(buckets.COMMITTED)
        checkpoints.save(STATES[2], 2)
    assert len(said) == 1 and f"{folder}/checkpoints/damaged-2" in said[0]
    assert readers.is_there(folder / "checkpoints" / "damaged-2" / buckets.COMMITTED)
    assert files.complete_steps(folder / "checkpoints") == [1, 2]


def test_only_the_newest_checkpoint_is_copied(s3, tmp_path, monkeypatch):
    """And nothing stays of an earlier copy, here or there; what makes one complete goes first."""
    folder = expanded(servers.folder(s3))
    for step in "12":
        (tmp_path / step / "item").mkdir(parents=True)
        (tmp_path / step / "item" / step).touch()
        seals.seal(tmp_path / step)
        buckets.write(folder / step / "unfinished", b"")
        transfer.publish(tmp_path / step, folder)
        assert set(buckets.files(folder / step)) == {f"item/{step}", seals.NAME, buckets.COMMITTED}
    for _ in range(2):
        here = transfer.fetched(folder, "read")
        assert files.names(here) == ["2"] and seals.damage(here / "2") is None
        (here / "3").mkdir()
    removed = []
    with monkeypatch.context() as patch:
        patch.setattr(clients.client(folder), "rm", lambda path, recursive: removed.append(path))
        buckets.remove(folder / "1")
    assert removed == [f"{folder}/1/{buckets.COMMITTED}", f"{folder}/1"]
    buckets.write(folder / "large", b"1")
    with pytest.raises(UserError, match="has 1 bytes; at most 0 are read"):
        buckets.read(folder / "large", most=0)


@pytest.mark.parametrize(
    "bucket", [pytest.param("gs", marks=pytest.mark.full), "s3"], indirect=True
)  # the client of gs:// waits for seconds before it repeats a request
def test_failing_requests_are_repeated_and_said_once(bucket, faults, capfd, monkeypatch):
    monkeypatch.setattr(clients._Retries, "said", False)
    faults.failing = 0.05
    assert live(expanded(bucket)) == 0
    assert read_digests(expanded(bucket) / "checkpoints", 2) == digests(STATES[2])
    assert capfd.readouterr().err.count("A request to a bucket failed and is repeated") == 1


OTHER = {"owner": "process 7 on elsewhere", "machine": "elsewhere", "pid": 7, "born": "1"}


def write_lock(folder, **changes):
    content = json.dumps({**OTHER, "lease": "other", **changes}).encode()
    clients.client(folder).pipe_file(f"{folder}/.lock", content)


def test_locks(bucket, monkeypatch, capfd):
    folder = expanded(bucket)
    monkeypatch.setattr(leases, "STALE_SECONDS", 0.2)
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.05)
    write_lock(folder)
    with files.locked(folder / ".lock"):  # it has not changed for so long
        assert readers.read_object(folder / ".lock")["pid"] == os.getpid()
    monkeypatch.setattr(leases, "STALE_SECONDS", 60)
    ended = {"machine": leases._machine(), "pid": 2**30}
    write_lock(folder, **ended)
    capfd.readouterr()
    with files.locked(folder / ".lock"):  # that process of this machine has ended
        assert "is locked by" not in capfd.readouterr().err
    beats = iter(range(100))
    monkeypatch.setattr(leases.time, "sleep", lambda _: write_lock(folder, beat=next(beats)))
    write_lock(folder)
    with (
        pytest.raises(UserError, match="in use by process 7 on elsewhere"),
        files.locked(folder / ".lock"),
    ):
        pass


@pytest.mark.parametrize("noticed", ["when renewed", "before writing"])
def test_a_lost_lock_ends_the_run(bucket, noticed, monkeypatch, tmp_path):
    folder = expanded(bucket)
    if noticed == "when renewed":
        monkeypatch.setattr(leases, "BEAT_SECONDS", 0.02)
    with files.locked(folder / ".lock"):
        files.write_atomically(folder / "a.json", "1")
        write_lock(folder)
        lease = leases._held[str(folder)]
        if noticed == "when renewed":
            lease._thread.join()
        else:
            lease._renewed -= leases.STALE_SECONDS
        (tmp_path / "a.json").write_text("2")
        for change in (
            lambda: files.write_atomically(folder / "a.json", "2"),
            lambda: buckets.upload(tmp_path, folder),
            lambda: buckets.remove(folder / "a.json"),
        ):
            with pytest.raises(UserError, match="taken over by process 7 on elsewhere"):
                change()
    assert readers.read_bytes(folder / "a.json") == b"1"
    assert readers.read_object(folder / ".lock")["pid"] == 7


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_missing_bucket_is_named(scheme, request):
    request.getfixturevalue(scheme)
    run = RunFolder(expanded(f"{scheme}://abc-missing/run"))
    for use in (lambda: run.locked().__enter__(), lambda: jaxclr.Run(run.folder)):
        with pytest.raises(UserError, match=f"The bucket {scheme}://abc-missing does not exist"):
            use()


@pytest.mark.parametrize(
    "url, error, said",
    [
        ("gs://abc/run", gcsfs.retry.HttpError({"code": 401, "message": "who?"}), "gcloud auth"),
        ("gs://abc/run", google.auth.exceptions.RefreshError("expired"), "gcloud auth"),
        ("gs://abc/run", OSError("Forbidden: abc/run\nno"), "do not permit the use of"),
        ("gs://abc/run", gcsfs.retry.HttpError({"code": 503, "message": "busy"}), "later"),
        ("s3://abc/run", botocore.exceptions.NoCredentialsError(), "aws configure"),
        ("s3://abc/run", PermissionError("Access Denied"), "do not permit the use of"),
        ("s3://abc/run", TimeoutError("slow"), "later"),
    ],
)
def test_errors_are_sentences(url, error, said):
    with pytest.raises(UserError, match=said) as raised, clients.reaching(expanded(url)):
        raise error
    assert "\n" not in str(raised.value)
