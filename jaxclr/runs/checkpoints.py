"""Checkpoints of a run: written in the background by Orbax, complete or absent, and proven when they are read."""

import errno
import functools
import json
import os
import pathlib
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxclr.errors import UserError
from jaxclr.processes import runtime
from jaxclr.runs import seals
from jaxclr.runs.digests import digests
from jaxclr.steps.state import State

_TEMPORARY = "*.orbax-checkpoint-tmp*"


class Checkpoints:
    """The folder of a run's checkpoints, as a context manager: what was saved is on disk when it ends.

    Beside the arrays a checkpoint holds the type, the shape and a digest of every leaf, since Orbax restores a bit that
    has flipped in silence, and the checksums of its files, by which damage is named before Orbax stumbles over it.

    Several processes share the folder: all call the same methods, and the first one decides what is damaged and tells the rest.

    Args:
      folder: where they are; made if need be.
      keep: how many of the newest to keep.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 2):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        # Orbax would share the writing of replicated arrays out among devices, and for that compile a slice of every leaf on
        # each of them while the first save holds the steps up.
        arrays = ocp.type_handlers.ArrayHandler(use_replica_parallel=False)
        registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
        handlers = {
            "state": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
            "proof": ocp.JsonCheckpointHandler(),
        }
        self._folder = folder
        self._manager = ocp.CheckpointManager(
            folder.resolve(), options=options, item_handlers=handlers
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            self.close()
        elif isinstance(error, Exception) and not runtime.peer_lost(error):
            # What went wrong first is what is told.
            try:
                self.close()
            except UserError:
                pass

    @property
    def latest(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        return runtime.broadcast(self._manager.latest_step())

    def save(self, state: State, step: int) -> float:
        """Starts to write a state; the arrays are copied before this returns, so they may be donated.

        Returns:
          Seconds for which the caller waited.

        Raises:
          UserError: it cannot be written, or the one before it could not.
        """
        start = time.perf_counter()
        leaves = {
            name: {**kind, "digest": digest}
            for (name, kind), digest in zip(_kinds(state).items(), digests(state).values(), strict=True)
        }
        proof = {"leaves": leaves, "crc32": _crc32(leaves)}
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(jax.tree.map(_raw, state)), proof=ocp.args.JsonSave(proof)
        )
        try:
            self._manager.save(step, args=args, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unwritable(error) from error
        return time.perf_counter() - start

    def restore(self, like: State, *, say: Callable[[str], None]) -> State:
        """The newest undamaged state, laid out over devices as `like` is.

        Damaged checkpoints that are newer are renamed to damaged-STEP, out of the way of those to come.

        Args:
          like: a state of the same structure, shapes and types.
          say: told of each damaged checkpoint, and of what is wrong with it, in a sentence.

        Raises:
          UserError: there is no checkpoint, none is undamaged, or the newest one is of another structure.
        """
        return runtime.run_on_all(functools.partial(self._newest_whole, like, say))

    def wait(self) -> None:
        """Waits until what was saved is on disk.

        Raises:
          UserError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Waits until what was saved is on disk, and ends the threads.

        Raises:
          UserError: it could not be written.
        """
        try:
            self.wait()
        finally:
            self._manager.close()
            # A part of a checkpoint is of no use, and the disk may be full of it.
            for part in self._folder.glob(_TEMPORARY) if jax.process_index() == 0 else ():
                shutil.rmtree(part, ignore_errors=True)

    def _newest_whole(self, like: State, say: Callable[[str], None]) -> State:
        self.wait()
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged: dict[int, str] = {}
        for step in runtime.broadcast_all(self._whole_first(steps, damaged)):
            state, wrong = self._attempt(step, like)
            if wrong := runtime.first_nonempty(wrong):
                damaged.setdefault(step, wrong)
                continue
            runtime.run_on_first(functools.partial(self._set_aside, step, damaged, say))
            self._manager.reload()
            return state
        if damaged:
            told = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
            raise UserError(
                f"Every checkpoint in {self._folder} is damaged ({told}). "
                "Put back a copy of one, or start anew with --overwrite or another --out."
            )
        raise UserError(f"{self._folder} holds no complete checkpoint: nothing to resume or evaluate yet.")

    def _whole_first(self, steps: list[int], damaged: dict[int, str]) -> Iterator[int]:
        """The steps with an undamaged folder, then the others, which are added to those damaged: the file may not matter."""
        altered = []
        for step in steps:
            if wrong := seals.damage(self._folder / str(step)):
                damaged[step] = wrong
                altered.append(step)
            else:
                yield step
        yield from altered

    def _attempt(self, step: int, like: State) -> tuple[State | None, str | None]:
        """The state of a step, or what is wrong with it."""
        try:
            return self._restore(step, like), None
        except UserError:
            raise
        except Exception as error:  # Orbax, TensorStore and JSON each raise their own.
            if runtime.peer_lost(error):
                raise
            return None, _reason(error)

    def _restore(self, step: int, like: State) -> State:
        """The state of a step, if its leaves are those that were saved."""
        item = ocp.args.Composite(proof=ocp.args.JsonRestore())
        proof = self._manager.restore(step, args=item).proof
        saved = proof["leaves"]
        if proof["crc32"] != _crc32(saved):
            raise ValueError("its list of leaves was altered")
        self._check_structure(step, saved, _kinds(like))
        abstract = jax.tree.map(lambda leaf: ocp.utils.to_shape_dtype_struct(_raw(leaf)), like)
        placed = ocp.checkpoint_utils.construct_restore_args(abstract)
        args = ocp.args.Composite(state=ocp.args.PyTreeRestore(abstract, restore_args=placed))
        state = jax.tree.map(_typed, self._manager.restore(step, args=args).state, like)
        wrong = [name for name, digest in digests(state).items() if digest != saved[name]["digest"]]
        if wrong:
            more = f" and {len(wrong) - 1} more" * (len(wrong) > 1)
            raise ValueError(f"{wrong[0]}{more} differs from what was saved")
        return state

    def _check_structure(self, step: int, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
        told = {name: _told(kind) for name, kind in saved.items()}
        here = {name: _told(kind) for name, kind in wanted.items()}
        for name in [*here, *told]:
            if told.get(name) != here.get(name):
                raise UserError(
                    f"Checkpoint {step} in {self._folder} is of another model: {name} is {told.get(name, 'absent')} "
                    f"there and {here.get(name, 'absent')} here. Use the code and the configuration that wrote it, "
                    "or give another folder with --out."
                )

    def _seal(self) -> None:
        """Seals what has been written and is about to get its name; in Orbax's thread."""
        if jax.process_index() == 0:
            for folder in self._folder.glob(_TEMPORARY):
                seals.seal(folder)

    def _set_aside(self, step: int, damaged: dict[int, str], say: Callable[[str], None]) -> None:
        """Renames the damaged checkpoints after a step, so that they are none for Orbax, and tells what was done."""
        for newer, reason in damaged.items():
            if newer > step:
                place, copy = self._folder / f"damaged-{newer}", 1
                while place.exists():
                    copy += 1
                    place = self._folder / f"damaged-{newer}-{copy}"
                (self._folder / str(newer)).rename(place)
                say(f"Checkpoint {newer} is damaged ({reason}) and now {place}; {step} is used instead.")
        if step in damaged:
            say(f"Checkpoint {step} is used: its arrays are what was saved, though {damaged[step]}.")

    def _unwritable(self, error: Exception) -> UserError:
        return UserError(
            f"A checkpoint could not be written to {self._folder}: {_reason(error)}. "
            "Those before it are whole: free some space or mend the permissions, then run the same command again."
        )


def _raw(leaf: jax.Array) -> jax.Array:
    """What is written of a leaf: of typed keys their words."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _typed(raw: jax.Array, like: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(raw, impl=jax.random.key_impl(like)) if _is_key(like) else raw


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _kinds(state: State) -> dict[str, dict[str, Any]]:
    """Type and shape of every leaf by its path."""
    return {
        jax.tree_util.keystr(path): {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}
        for path, leaf in jax.tree.leaves_with_path(state)
    }


def _told(kind: dict[str, Any]) -> str:
    return f"{kind['dtype']}{kind['shape']}"


def _crc32(leaves: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(leaves, sort_keys=True).encode())


def _reason(error: Exception) -> str:
    """What the file system refused, if that is what an error says somewhere, or else its first line."""
    said = str(error).strip()
    for refused in map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)):
        if refused in said:
            return refused
    line = said.splitlines()[0] if said else type(error).__name__
    return (line if len(line) <= 200 else f"{line[:200]} ...").rstrip(".:")
