"""Checkpoints: after any damage the one before is used, and the next save takes its place."""

import pathlib
import re
import shutil
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts

from jaxclr.errors import UserError
from jaxclr.runs import checkpoints as modules
from jaxclr.runs import proofs, seals, stores
from jaxclr.runs.checkpoints import Checkpoints, read_digests, read_variables, unfinished
from jaxclr.runs.digests import digests
from jaxclr.runs.folder import RunFolder

ROOT = pathlib.Path(__file__).parents[2]

OLD = {
    "kernel": jnp.arange(600.0).reshape(20, 30) / 7,
    "zeros": jnp.zeros(5, jnp.bfloat16),
    "step": jnp.int32(1),
    "key": jax.random.key(1),
}
NEW = {
    "kernel": OLD["kernel"] + 1,
    "zeros": OLD["zeros"],
    "step": jnp.int32(2),
    "key": jax.random.key(2),
}


def flip(data, place):
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "zeroed": lambda data: bytes(len(data)),
    "removed": lambda data: None,
    "first bit": lambda data: flip(data, 0),
    "middle bit": lambda data: flip(data, len(data) // 2),
    "last bit": lambda data: flip(data, len(data) - 1),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(OLD, 1)
        checkpoints.save(NEW, 2)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def restored(folder):
    """What is restored, and what is said."""
    said = []
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(OLD, say=said.append), said


def is_one_of_them(state):
    step = int(state["step"])
    assert digests(state) == digests({1: OLD, 2: NEW}[step])
    return step


def test_the_newest_comes_back_bit_for_bit(folder):
    state, said = restored(folder)
    assert is_one_of_them(state) == 2 and not said
    assert jax.random.uniform(state["key"]) == jax.random.uniform(NEW["key"])


def test_whatever_becomes_of_a_file(saved, tmp_path, capfd):
    files = [path.relative_to(saved) for path in (saved / "2").rglob("*") if path.is_file()]
    assert len(files) > 10
    told = []
    for index, file in enumerate(files):
        for name, damage in DAMAGES.items():
            folder = tmp_path / f"{index}{name}"
            shutil.copytree(saved, folder)
            content = damage((folder / file).read_bytes())
            (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
            state, said = restored(folder)
            step = is_one_of_them(state)
            told += said
            # What lies beside the items is Orbax's own, and of no consequence.
            assert step == (2 if len(file.parts) == 2 and file.name != seals.NAME else 1), (
                file,
                name,
            )
            assert (folder / "damaged-2").exists() == (step == 1)
            shutil.rmtree(folder)
    assert all(line.startswith("Checkpoint 2 is damaged (") and "\n" not in line for line in told)
    assert "Traceback" not in capfd.readouterr().err


def replace_state(folder, state):
    """Replaces the arrays of a checkpoint: the digests are wrong then, the checksums right."""
    with ocp.CheckpointManager(folder.parents[1] / "other") as manager:
        manager.save(2, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))
    shutil.rmtree(folder / "state")
    shutil.move(folder.parents[1] / "other" / "2" / "state", folder / "state")
    shutil.rmtree(folder.parents[1] / "other")
    seals.seal(folder)


def test_arrays_that_orbax_restores_in_silence_are_held_against_their_digests(folder):
    one_bit = np.asarray(NEW["kernel"]).copy()
    one_bit.view(np.uint32)[3, 4] ^= 1
    replace_state(
        folder / "2",
        {**NEW, "kernel": jnp.asarray(one_bit), "key": jax.random.key_data(NEW["key"])},
    )
    state, said = restored(folder)
    assert is_one_of_them(state) == 1
    assert "damaged (['kernel'] differs from what was saved)" in said[0]


def test_a_damaged_one_is_out_of_the_way_of_the_next(folder):
    for copy in ("damaged-2", "damaged-2-2"):
        (folder / "2" / "proof" / "metadata").write_text("{}")
        with Checkpoints(folder) as checkpoints:
            checkpoints.restore(OLD, say=lambda _: None)
            assert checkpoints.latest == 1
            checkpoints.save(NEW, 2)
        assert (folder / copy / "proof" / "metadata").read_text() == "{}"
    assert is_one_of_them(restored(folder)[0]) == 2


def test_the_only_one_serves_though_a_file_that_does_not_matter_is_damaged(folder):
    shutil.rmtree(folder / "1")
    (folder / "2" / "state" / "_sharding").unlink()
    state, said = restored(folder)
    assert is_one_of_them(state) == 2
    assert said == [
        "Checkpoint 2 is used: its arrays are what was saved, though state/_sharding is missing."
    ]


def test_nothing_is_touched_where_none_is_whole(folder):
    for step in "12":
        (folder / step / "proof" / "metadata").unlink()
    with pytest.raises(
        UserError, match="Every checkpoint in .* is damaged .2: proof/metadata is missing; 1: "
    ):
        restored(folder)
    assert {path.name for path in folder.iterdir()} == {"1", "2"}


def test_another_structure_is_no_damage(folder):
    for other, told in (
        (
            {**OLD, "kernel": jnp.zeros((20, 31))},
            r"kernel'\] is float32\[20, 30\] there and float32\[20, 31\] here",
        ),
        ({**OLD, "bias": OLD["zeros"]}, r"bias'\] is absent there"),
        ({"kernel": OLD["kernel"]}, "absent here"),
    ):
        with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match=told):
            checkpoints.restore(other, say=pytest.fail)
    assert {path.name for path in folder.iterdir()} == {"1", "2"}


def test_a_save_that_fails_leaves_those_before_it(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(seals, "seal", full)
    with (
        pytest.raises(UserError, match="could not be written to .*: No space left on device"),
        Checkpoints(folder, keep=1) as checkpoints,
    ):
        checkpoints.save(NEW, 3)
    assert {path.name for path in folder.iterdir()} == {"1", "2"}
    assert is_one_of_them(restored(folder)[0]) == 2


def test_a_folder_that_is_gone_is_told(tmp_path):
    folder = tmp_path / "checkpoints"
    with (
        pytest.raises(UserError, match="A checkpoint could not be written to .*: "),
        Checkpoints(folder) as checkpoints,
    ):
        shutil.rmtree(folder)
        folder.touch()
        checkpoints.save(NEW, 1)


def test_a_part_left_by_a_process_that_died_is_no_checkpoint(folder):
    part = shutil.copytree(folder / "2", folder / "3.orbax-checkpoint-tmp")
    assert unfinished(folder) == [part]
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest == 2
        checkpoints.save(NEW, 3)
    assert {path.name for path in folder.iterdir()} == {"2", "3"}
    assert read_digests(folder, 3) == digests(NEW)


def test_donated_buffers_do_not_change_what_is_written(tmp_path):
    overwrite = jax.jit(
        lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0
    )
    state = {"kernel": jnp.arange(1e6)}
    want = digests(state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 1)
        state = jax.block_until_ready(overwrite(state))
        checkpoints.wait()
        assert digests(checkpoints.restore(state, say=pytest.fail)) == want


@pytest.mark.parametrize(("checksums", "read"), [(True, [1]), (False, [2, 1])])
def test_checksums_keep_damaged_files_from_orbax(folder, monkeypatch, checksums, read):
    """Digests alone find this damage, too, but Orbax's threads may print tracebacks then."""
    (folder / "2" / "state" / "manifest.ocdbt").write_bytes(b"")
    steps = []
    original = modules._read

    def spy(manager, step, wanted):
        steps.append(step)
        if step == 2:
            raise ValueError("Orbax would read the damaged file")
        return original(manager, step, wanted)

    monkeypatch.setattr(modules, "_read", spy)
    if not checksums:
        monkeypatch.setattr(seals, "damage", lambda folder: None)
    state, said = restored(folder)
    assert is_one_of_them(state) == 1 and "Checkpoint 2 is damaged (" in said[0]
    assert steps == read


@flax.struct.dataclass
class Small:
    """What `State` is to a checkpoint, in a few bytes."""

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    rng: Any


def small(step, encoder=None):
    kernel = jnp.arange(24.0).reshape(4, 6) / 7 + step
    return Small(
        jnp.int32(step),
        {"encoder": encoder or {"Dense_0": {"kernel": kernel}}, "projector": {"bias": jnp.ones(3)}},
        {"encoder": {"mean": jnp.full(6, 0.5)}},
        (jnp.zeros(2, jnp.bfloat16), {"trace": kernel * 2}),
        jax.random.key(step),
    )


def shifted(tree, by):
    return jax.tree.map(lambda leaf: leaf + by, tree)


def same(one, other):
    return list(digests(one).values()) == list(digests(other).values())


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_of_version_0_1_0_is_read(tmp_path):
    """Written by the code of version 0.1.0: its files have to stay readable."""
    folder = shutil.copytree(ROOT / "tests" / "golden" / "checkpoints", tmp_path / "checkpoints")
    step, variables = read_variables(RunFolder(tmp_path))
    assert step == 2
    assert same(
        variables,
        {
            "params": {"encoder": small(2).params["encoder"]},
            "batch_stats": {"encoder": small(2).batch_stats["encoder"]},
        },
    )
    with Checkpoints(folder) as checkpoints:
        assert digests(checkpoints.restore(small(0), say=pytest.fail)) == digests(small(2))
        checkpoints.save(small(3), 3)
    assert read_variables(RunFolder(tmp_path))[0] == 3
    for path in (folder / "2" / "state" / "ocdbt.process_0" / "d").iterdir():
        path.write_bytes(b"")
    shutil.rmtree(folder / "3")
    with pytest.raises(UserError, match="Every checkpoint .* is damaged .2: state/ocdbt"):
        read_variables(RunFolder(tmp_path))


def test_the_encoder_is_read_from_the_newest_whole_checkpoint_and_nothing_is_changed(tmp_path):
    """An encoder of any tree; an unfinished checkpoint and the rest of the state do not matter."""
    encoder = {
        "blocks": {0: jnp.ones(3), 1: jnp.zeros(2)},
        "list": [jnp.arange(2.0), {"a.b": jnp.ones(())}],
    }
    run = RunFolder(tmp_path)
    with Checkpoints(run.checkpoints, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(small(step, encoder=shifted(encoder, step)), step)
    other = small(3, encoder=encoder)
    replace_state(
        run.checkpoints / "3",
        jax.tree.map(lambda leaf: jnp.ones(()) if leaf is other.rng else leaf, other),
    )
    (run.checkpoints / "2" / "proof" / "metadata").write_text("{}")
    shutil.copytree(run.checkpoints / "2", run.checkpoints / "4.orbax-checkpoint-tmp")
    before = content(tmp_path)
    step, variables = read_variables(run)
    assert step == 1 and content(tmp_path) == before
    assert same(variables["params"]["encoder"], shifted(encoder, 1))


BRACKETS = "lr=[0.1]"  # Orbax merges the files of processes by a glob, in which this is a pattern


@pytest.mark.parametrize("name", [BRACKETS, "a*?]{b}", "é %20#@:\n$HOME ~;&'\""])
def test_any_path_holds_checkpoints(tmp_path, name):
    run = RunFolder(tmp_path / name)
    with Checkpoints(run.checkpoints) as checkpoints:
        checkpoints.save(small(1), 1)
    with Checkpoints(run.checkpoints) as checkpoints:
        assert digests(checkpoints.restore(small(0), say=pytest.fail)) == digests(small(1))
    assert read_variables(run)[0] == 1


@pytest.mark.parametrize("name", ["a\\b", "gs:", "caf\udce9"])
def test_a_path_that_would_lose_checkpoints_is_refused(tmp_path, name):
    for folder in (tmp_path / name, tmp_path / name / "run"):
        with pytest.raises(UserError, match="cannot be stored in .* give another folder"):
            Checkpoints(folder)
        with (
            pytest.raises(UserError, match="cannot be stored in .* give another folder"),
            RunFolder(folder).locked(),
        ):
            pass
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_not_saved_unless_its_arrays_are_on_disk(tmp_path, monkeypatch):
    """Whatever a library believes: they are read back before the checkpoint gets its name."""
    unmerged = tmp_path / BRACKETS
    monkeypatch.setattr(stores, "merge", lambda _: None)
    with (
        pytest.raises(UserError, match="its arrays have no manifest"),
        Checkpoints(unmerged) as checkpoints,
    ):
        checkpoints.save(small(1), 1)
    altered = lambda folder: ((name, array + 1) for name, array in whole(folder))
    whole = stores.read
    monkeypatch.setattr(stores, "read", altered)
    with (
        pytest.raises(UserError, match="step and 6 more differs from what was saved"),
        Checkpoints(tmp_path / "altered") as checkpoints,
    ):
        checkpoints.save(small(1), 1)
    assert not list(unmerged.iterdir()) and not list((tmp_path / "altered").iterdir())


def test_a_run_that_was_never_merged_comes_back(tmp_path, monkeypatch):
    """As version 0.1 left it: sealed without a manifest."""
    lost, read = RunFolder(tmp_path / BRACKETS), RunFolder(tmp_path / f"{BRACKETS}-read")
    with monkeypatch.context() as patch, Checkpoints(lost.checkpoints) as checkpoints:
        patch.setattr(modules, "_complete", seals.seal)
        checkpoints.save(small(1), 1)
        checkpoints.wait()
    assert not stores.is_merged(lost.checkpoints / "1" / "state")
    shutil.copytree(lost.folder, read.folder)
    with Checkpoints(lost.checkpoints) as checkpoints:
        assert digests(checkpoints.restore(small(0), say=pytest.fail)) == digests(small(1))
    step, variables = read_variables(read)
    assert step == 1 and same(variables["params"]["encoder"], small(1).params["encoder"])
    for file in (read.checkpoints / "1" / "state" / "ocdbt.process_0" / "d").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match="Every checkpoint .* is damaged"):
        read_variables(read)


def test_the_files_of_several_processes_are_merged(tmp_path):
    spec = {"driver": "zarr", "metadata": {"shape": [3], "dtype": "<i4"}, "create": True}
    for process in range(2):
        base = {"driver": "file", "path": f"{tmp_path}/ocdbt.process_{process}/"}
        store = {"driver": "ocdbt", "base": base, "path": f"array{process}/"}
        ts.open({**spec, "kvstore": store}).result().write(
            np.arange(3, dtype=np.int32) + process
        ).result()
    with pytest.raises(ValueError, match="no manifest"):
        list(stores.read(tmp_path))
    stores.merge(tmp_path)
    found = {name: array.tolist() for name, array in stores.read(tmp_path)}
    assert found == {"array0": [0, 1, 2], "array1": [1, 2, 3]}


def test_a_proof_names_what_was_saved():
    """Its list cannot be altered, and keys keep their type."""
    state = {"key": jax.random.key(1, impl="rbg"), "step": jnp.int32(1)}
    proof = proofs.proof(state)
    assert set(proofs.checked_leaves(proof)) == {"['key']", "['step']"}
    proof["leaves"]["['step']"]["dtype"] = "int64"
    with pytest.raises(ValueError, match="its list of leaves was altered"):
        proofs.checked_leaves(proof)
    key = proofs.typed(proofs.raw(state["key"]), state["key"])
    assert key.dtype == state["key"].dtype and digests({"": key}) == digests({"": state["key"]})


def test_two_modules_know_orbax():
    """Nothing else imports it, or names a file or folder of its layout."""
    layout = re.compile(
        r"orbax\.checkpoint|orbax-checkpoint|ocdbt|_METADATA|proof.{1,5}metadata|\.array_metadata"
    )
    files = [path for part in ("jaxclr", "experiments") for path in (ROOT / part).rglob("*.py")]
    assert len(files) > 100
    found = {str(path.relative_to(ROOT)) for path in files if layout.search(path.read_text())}
    assert found == {"jaxclr/runs/checkpoints.py", "jaxclr/runs/stores.py"}
