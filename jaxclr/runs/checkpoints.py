"""Checkpoints of a run, written in the background by Orbax and verified when they are read.

No other module imports Orbax.
"""

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

import jax
import orbax.checkpoint as ocp

from jaxclr.errors import SharedError, UserError
from jaxclr.paths import Path, in_bucket, resolved
from jaxclr.processes import runtime
from jaxclr.runs import proofs, seals, stores
from jaxclr.runs.buckets import check_lock
from jaxclr.runs.digests import digests, host_digest
from jaxclr.runs.files import (
    check_path,
    check_writable,
    complete_steps,
    disk_reason,
    names,
    remove,
    rename,
    writing,
)
from jaxclr.runs.folder import RunFolder
from jaxclr.runs.readers import is_there
from jaxclr.runs.transfer import fetched, is_copied, publish, remove_old
from jaxclr.steps.state import State

KINDS = ("params", "batch_stats")  # the parts of a state that hold the encoder's variables

T = TypeVar("T")
Tree = Any


class Checkpoints:
    """The folder of a run's checkpoints, as a context manager that waits for writes at its end.

    A checkpoint stores two proofs with its arrays. The digest of every leaf decides whether the
    arrays are those that were saved: Orbax restores some flipped bits without an error. The
    checksums of the files name a damaged file before Orbax reads it: its threads would print
    tracebacks. A checkpoint gets its checksums and its name once its arrays were read back from the
    disk and had their digests.

    Several processes share the folder. All call the same methods; the first process decides what is
    damaged.

    Orbax writes to gs:// and not to s3:// (0.12 refuses its URLs as relative paths). There a
    checkpoint is written to this machine and uploaded once it is complete, by a single process.

    Args:
      folder: where they are; created if it does not exist.
      keep: how many of the newest to keep.

    Raises:
      UserError: the folder cannot be written, or several processes cannot share it.
    """

    def __init__(self, folder: Path, *, keep: int = 2):
        # In gs:// Orbax would ask for permissions on the bucket, and removes in any order.
        removes = not in_bucket(folder) or is_copied(folder)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep if removes else None,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=removes,
            # If folders were created in the background and that failed, threads would wait for them
            # for 20 minutes, and the process for its threads.
            async_options=ocp.AsyncOptions(
                post_finalization_callback=self._seal, create_directories_asynchronously=False
            ),
        )
        check_path(folder)
        self._kept, self._keep = folder, keep
        if is_copied(folder) and not runtime.is_single():
            raise SharedError(
                f"Several processes cannot write checkpoints to {folder}, which Orbax does not "
                "support; give a folder in gs:// or one that all share."
            )
        runtime.run_on_first(self._remove_unfinished)
        self._folder = fetched(folder, "written")
        runtime.run_on_first(functools.partial(check_writable, self._folder))
        self._manager = _open(self._folder, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            self.close()
        elif isinstance(error, Exception) and not runtime.peer_lost(error):
            with contextlib.suppress(UserError):  # the first error is the one to report
                self.close()

    @property
    def latest(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        return runtime.broadcast(self._manager.latest_step())

    def save(self, state: State, step: int) -> float:
        """Starts to write a state. The arrays may be donated when this returns.

        Returns:
          Seconds that the caller waited.

        Raises:
          UserError: it cannot be written, or the one before it could not.
        """
        start = time.perf_counter()
        check_lock(self._kept)
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(jax.tree.map(proofs.raw, state)),
            proof=ocp.args.JsonSave(proofs.proof(state)),
        )
        with self._writing():
            self._manager.save(step, args=args, force=True)
        return time.perf_counter() - start

    def restore(self, like: State, *, say: Callable[[str], None]) -> State:
        """The newest undamaged state, laid out over devices as `like` is.

        Newer damaged checkpoints are renamed to damaged-STEP, so that their step can be saved
        again.

        Args:
          like: a state of the same structure, shapes and types.
          say: called with a sentence on each damaged checkpoint.

        Raises:
          UserError: there is no checkpoint, none is undamaged, or the newest one is of another
            structure.
        """
        return runtime.run_on_all(functools.partial(self._newest_undamaged, like, say))

    def wait(self) -> None:
        """Waits until what was saved is on disk.

        Raises:
          UserError: it could not be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until what was saved is on disk, and ends the threads.

        Raises:
          UserError: it could not be written.
        """
        try:
            self.wait()
        finally:
            with self._writing():
                self._manager.close()
            # An incomplete checkpoint is useless, and it may be what fills the disk.
            with contextlib.suppress(OSError, UserError):
                for part in unfinished(self._folder) if jax.process_index() == 0 else ():
                    remove(part)
        if jax.process_index() == 0:
            remove_old(self._kept, self._keep)

    def _newest_undamaged(self, like: State, say: Callable[[str], None]) -> State:
        self.wait()
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged: dict[int, str] = {}
        for step in runtime.broadcast_all(self._by_damage(steps, damaged)):
            state, wrong = _attempt(functools.partial(self._restore, step, like))
            if wrong := runtime.first_nonempty(wrong):
                damaged.setdefault(step, wrong)
                continue
            runtime.run_on_first(functools.partial(self._set_aside, step, damaged, say))
            self._manager.reload()
            assert state is not None  # it was read without an error
            return state
        if damaged:
            raise _all_damaged(self._kept, damaged)
        raise UserError(
            f"{self._kept} has no complete checkpoint: nothing to resume or evaluate yet."
        )

    def _by_damage(self, steps: list[int], damaged: dict[int, str]) -> Iterator[int]:
        """Steps with undamaged files, then those whose arrays may be undamaged all the same.

        All but the first are added to `damaged`.
        """
        altered = []
        for step in steps:
            folder = self._folder / str(step)
            if wrong := _damage(folder):
                damaged[step] = wrong
                altered += [step] * _may_serve(folder)
            else:
                yield step
        yield from altered

    def _restore(self, step: int, like: State) -> State:
        """The state of a step, if its leaves are those that were saved."""
        saved = _saved_leaves(self._manager, step)
        self._check_structure(step, saved, proofs.kinds(like))
        state = _read(
            self._manager,
            step,
            jax.tree.map(lambda leaf: ocp.utils.to_shape_dtype_struct(proofs.raw(leaf)), like),
        )
        state = jax.tree.map(proofs.typed, state, like)
        proofs.check_digests(digests(state), saved)
        return state

    def _check_structure(self, step: int, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
        there = {name: proofs.describe(kind) for name, kind in saved.items()}
        here = {name: proofs.describe(kind) for name, kind in wanted.items()}
        for name in [*here, *there]:
            if there.get(name) != here.get(name):
                raise UserError(
                    f"Checkpoint {step} in {self._kept} is of another model: {name} is "
                    f"{there.get(name, 'absent')} there and {here.get(name, 'absent')} here. Use "
                    "the code and the configuration that wrote it, or give another folder with "
                    "--out."
                )

    def _seal(self) -> None:
        """Completes a checkpoint. Orbax calls this before it gives the folder its name."""
        if jax.process_index() == 0:
            check_lock(self._kept)
            for folder in unfinished(self._folder):
                _complete(folder)
                if is_copied(self._kept):
                    publish(folder, self._kept)
            remove_old(self._kept, self._keep)

    def _remove_unfinished(self) -> None:
        """Removes what interrupted runs left in a bucket; elsewhere Orbax does."""
        if in_bucket(self._kept):
            for part in unfinished(self._kept):
                remove(part)

    def _set_aside(self, step: int, damaged: dict[int, str], say: Callable[[str], None]) -> None:
        """Renames damaged checkpoints after a step, so that Orbax ignores them, and reports it."""
        for newer, reason in damaged.items():
            if newer > step:
                path, copy = self._kept / f"damaged-{newer}", 1
                while is_there(path):
                    copy += 1
                    path = self._kept / f"damaged-{newer}-{copy}"
                rename(self._kept / str(newer), path)
                if self._kept != self._folder:
                    remove(self._folder / str(newer))
                say(
                    f"Checkpoint {newer} is damaged ({reason}) and now {path}; {step} is used "
                    "instead."
                )
        if step in damaged:
            say(
                f"Checkpoint {step} is used: its arrays are what was saved, though {damaged[step]}."
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what a disk or bucket refuses into a UserError."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if not in_bucket(self._kept) and not isinstance(
                error, (OSError, ValueError, RuntimeError)
            ):
                raise
            raise UserError(
                f"A checkpoint could not be written to {self._kept}: {disk_reason(error)}. "
                "Earlier checkpoints are undamaged: free some space or fix the permissions, then "
                "run the same command again."
            ) from error


def read_variables(
    run: RunFolder,
    parts: Sequence[str] = ("encoder",),
    *,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[int, Tree]:
    """Parts of the network in a run's newest undamaged checkpoint.

    The run may be in training; nothing in its folder is changed.

    Args:
      run: the folder.
      parts: of the network: encoder, projector, predictor.
      say: called with a sentence on each damaged checkpoint that is newer than the one read.

    Returns:
      The step, and "params" and "batch_stats" on the first device, each a dict of the parts that
      exist.

    Raises:
      UserError: there is no checkpoint, or none is undamaged.
    """
    damaged: dict[int, str] = {}
    folder = fetched(run.checkpoints, "read")
    if folder.is_dir():
        with _reader(folder) as manager:
            for step in sorted(manager.all_steps(), reverse=True):
                wrong = _damage(folder / str(step))
                if wrong is None:
                    variables, wrong = _attempt(
                        functools.partial(_read_parts, manager, step, parts)
                    )
                if wrong is None:
                    for newer, reason in damaged.items():
                        say(f"Checkpoint {newer} is damaged ({reason}); {step} is used instead.")
                    return step, variables
                damaged[step] = wrong
    if damaged:
        raise _all_damaged(run.checkpoints, damaged)
    raise UserError(
        f"{run.folder} has no checkpoint yet; continue it with `jaxclr resume {run.folder}`."
    )


def read_digests(folder: Path, step: int) -> dict[str, str]:
    """The digest of each leaf of a checkpoint, as it was when the state was saved."""
    with _reader(fetched(folder, "read")) as manager:
        return {name: leaf["digest"] for name, leaf in _saved_leaves(manager, step).items()}


def unfinished(folder: Path) -> list[Path]:
    """Folders of checkpoints that are being written, or whose writing was interrupted."""
    if in_bucket(folder):
        left = {name for name in names(folder) if name.isdecimal()}
        return [folder / name for name in left - {*map(str, complete_steps(folder))}]
    return [path for path in folder.iterdir() if ocp.utils.is_tmp_checkpoint(path)]


def _complete(folder: Path) -> None:
    """Merges the arrays of a checkpoint, reads them back, and writes the checksums of its files.

    Raises:
      ValueError: an array is not what was saved.
    """
    stores.merge(folder / "state")
    proof = json.loads((folder / "proof" / "metadata").read_bytes())
    saved = {proofs.words(name): leaf for name, leaf in proofs.checked_leaves(proof).items()}
    arrays = stores.read(folder / "state")
    there = {proofs.words(name): host_digest(array) for name, array in arrays}
    proofs.check_digests({name: there.get(name) for name in saved}, saved)
    seals.seal(folder)


def _damage(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint; None if they are what was written.

    Versions before 0.2 left the arrays unmerged if a folder above was named as a pattern of glob;
    such a checkpoint is completed.
    """
    wrong = seals.damage(folder)
    if wrong or stores.is_merged(folder / "state"):
        return wrong
    return _attempt(functools.partial(_complete, folder))[1]


def _may_serve(folder: Path) -> bool:
    """Whether only Orbax's metadata are damaged: of other files it might read without an end."""
    return all(name.startswith("state/_") for name in seals.damages(folder))


def _open(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    if wrong := seals.unreadable(folder):  # opening reads the metadata of all steps
        raise UserError(f"{folder} cannot be read: {wrong}. Remove or restore it.")
    # By default Orbax divides the writing of replicated arrays among devices, and compiles a slice
    # of every leaf on each of them during the first save.
    arrays = ocp.type_handlers.ArrayHandler(use_replica_parallel=False)
    registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
    handlers = {
        "state": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
        "proof": ocp.JsonCheckpointHandler(),
    }
    with writing(folder):
        return ocp.CheckpointManager(resolved(folder), options=options, item_handlers=handlers)


def _reader(folder: Path) -> ocp.CheckpointManager:
    """A manager that changes nothing."""
    return _open(
        folder, ocp.CheckpointManagerOptions(create=False, enable_async_checkpointing=False)
    )


def _read(manager: ocp.CheckpointManager, step: int, wanted: Tree) -> Tree:
    """All or some arrays of a checkpoint; `wanted` is a tree of shapes, types and shardings."""
    placed = ocp.checkpoint_utils.construct_restore_args(wanted)
    args = ocp.args.PyTreeRestore(wanted, restore_args=placed, partial_restore=True)
    return manager.restore(step, args=ocp.args.Composite(state=args))["state"]


def _read_parts(manager: ocp.CheckpointManager, step: int, parts: Sequence[str]) -> Tree:
    saved = {proofs.words(name): leaf for name, leaf in _saved_leaves(manager, step).items()}
    tree = manager.item_metadata(step).state.tree
    found = {
        kind: {part: tree[kind][part] for part in parts if part in tree[kind]}
        for kind in KINDS
        if any(part in tree.get(kind, ()) for part in parts)
    }
    for path, leaf in jax.tree.leaves_with_path(found):  # before memory is allocated
        name = jax.tree_util.keystr(path)
        if list(leaf.shape) != saved[proofs.words(name)]["shape"]:
            raise ValueError(f"{name} has another shape than what was saved")
    one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def shape(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one_device)

    variables = _read(manager, step, jax.tree.map(shape, found))
    got = {proofs.words(name): digest for name, digest in digests(variables).items()}
    proofs.check_digests(got, saved)
    return variables


def _saved_leaves(manager: ocp.CheckpointManager, step: int) -> dict[str, dict[str, Any]]:
    """Type, shape and digest of each leaf that was saved."""
    return proofs.checked_leaves(
        manager.restore(step, args=ocp.args.Composite(proof=ocp.args.JsonRestore()))["proof"]
    )


def _attempt(read: Callable[[], T]) -> tuple[T | None, str | None]:
    """The result of `read` and None, or None and what is wrong with the checkpoint."""
    try:
        return read(), None
    except UserError:
        raise
    except Exception as error:  # Orbax, TensorStore and JSON each raise their own.
        if runtime.peer_lost(error):
            raise
        return None, disk_reason(error)


def _all_damaged(folder: Path, damaged: dict[int, str]) -> UserError:
    reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
    return UserError(
        f"Every checkpoint in {folder} is damaged ({reasons}). "
        "Restore a copy of one, or start again with --overwrite or another --out."
    )
