"""Reading the encoder out of a run's checkpoints, without the data, the method and the optimiser of the run."""

import json
import pathlib
import re
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import traverse_util

from jaxclr.errors import UserError
from jaxclr.runs import seals
from jaxclr.runs.digests import digests
from jaxclr.runs.folder import RunFolder

Tree = Any
KINDS = ("params", "batch_stats")


def read_variables(run: RunFolder) -> tuple[int, Tree]:
    """The step of a run's newest undamaged checkpoint, and its encoder's "params" and "batch_stats", on the first device.

    Nothing in the folder is changed.

    Raises:
      UserError: there is no checkpoint, or none is undamaged.
    """
    folders = sorted(
        (path for path in run.checkpoints.glob("*") if path.name.isdecimal()), key=lambda path: -int(path.name)
    )
    if not folders:
        raise UserError(f"{run.folder} has no checkpoint yet; continue it with `jaxclr resume {run.folder}`.")
    damaged = []
    for folder in folders:
        wrong = seals.damage(folder)
        if wrong is None:
            return int(folder.name), _read(folder)
        damaged.append(f"{folder.name}: {wrong}")
    raise UserError(f"Every checkpoint in {run.checkpoints} is damaged ({'; '.join(damaged)}). Put back a copy of one.")


def _read(folder: pathlib.Path) -> Tree:
    """The encoder's variables in a checkpoint whose files are as they were sealed."""
    saved = json.loads((folder / "proof" / "metadata").read_text())["leaves"]
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    kinds = {
        path: jax.ShapeDtypeStruct(tuple(leaf["shape"]), leaf["dtype"], sharding=one)
        for path, leaf in ((_path(name), leaf) for name, leaf in saved.items())
        if path[0] in KINDS and path[1] == "encoder"
    }
    wanted = traverse_util.unflatten_dict(kinds)
    args = ocp.args.PyTreeRestore(
        wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted), partial_restore=True
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.restore((folder / "state").resolve(), args=args)
    known = {_path(name): leaf["digest"] for name, leaf in saved.items()}
    for name, digest in digests(tree).items():
        if digest != known[_path(name)]:
            raise UserError(f"{folder} is damaged: {name} differs from what was saved. Put back a copy of it.")
    return {kind: tree[kind]["encoder"] for kind in KINDS if kind in tree}


def _path(name: str) -> tuple[str, ...]:
    """The words of a leaf's name: .params['encoder']['kernel'] has three."""
    return tuple(re.findall(r"\w+", name))
