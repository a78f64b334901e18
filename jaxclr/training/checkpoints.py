"""Checkpoints of a run: written in the background by Orbax, complete or absent, the newest few kept."""

import pathlib

import jax
import orbax.checkpoint as ocp

from jaxclr.errors import UserError
from jaxclr.training.state import State


class Checkpoints:
    """The folder of a run's checkpoints.

    Args:
      folder: where they are; made if need be.
      keep: how many of the newest to keep.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._folder = folder
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    @property
    def latest(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: State, step: int) -> None:
        """Starts to write a state; the arrays are copied before this returns, so they may be donated."""
        try:
            self._manager.save(step, args=ocp.args.StandardSave(state))
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from error

    def restore(self, like: State) -> State:
        """The newest state, laid out over devices as `like` is.

        Raises:
          UserError: there is no complete checkpoint.
        """
        if self.latest is None:
            raise UserError(f"{self._folder} holds no complete checkpoint: nothing to resume or evaluate yet.")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(self.latest, args=ocp.args.StandardRestore(abstract))

    def close(self) -> None:
        """Waits until what was saved is on disk."""
        try:
            self._manager.wait_until_finished()
            self._manager.close()
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> UserError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return UserError(
            f"A checkpoint could not be written to {self._folder}: {reason} "
            "Free some space or mend the permissions, then run `jaxclr resume`."
        )
