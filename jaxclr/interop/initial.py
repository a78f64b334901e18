"""Weights that a run starts from: those of another run, or of a file."""

import json
import os
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclr.errors import UserError
from jaxclr.interop.importing import read_encoder
from jaxclr.interop.positions import resize_positions
from jaxclr.paths import Path as FilePath
from jaxclr.paths import expanded, in_bucket
from jaxclr.processes import runtime
from jaxclr.runs.checkpoints import Checkpoints, read_variables
from jaxclr.runs.digests import digests
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.state import State, target_parts
from jaxclr.training.session import Session

Tree = Any
Path = tuple[str, ...]

HEADS = ("projector", "predictor", "readout")
_SHOWN = 5  # variables that a message names


class Start(NamedTuple):
    """The state of a run that starts from weights.

    Attributes:
      state: before the first step.
      record: for init.json: where the weights come from, their digest, and the names of the
        variables that were taken and left.
      note: what was taken and left, for the user.
    """

    state: State
    record: dict[str, Any]
    note: str


def start_from(session: Session, path: str | os.PathLike[str], *, heads: bool = False) -> Start:
    """The first state of a run, with the weights of another run or of a file.

    Variables of the encoder are taken where name and shape are equal. Learned positions of a ViT
    are interpolated for another number of patches. A head is taken if all of its variables fit.
    The momentum encoder starts as a copy.

    Args:
      session: of the new run.
      path: the folder of a run, or a file of weights as in `jaxclr.interop.importing`.
      heads: whether projector, predictor and the method's own parameters are taken too; files have
        none.

    Raises:
      UserError: the weights cannot be read, or none of the encoder fits.
    """
    path = _absolute(path)
    step, source = _read(session, path, heads)
    state = session.init_state()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    old = _flat(variables)
    found = {name: _fitting(source, name, leaf) for name, leaf in old.items()}
    new = {name: leaf for name, leaf in found.items() if leaf is not None}
    for head in HEADS:
        if any(name[1] == head and found[name] is None for name in old):
            new = {name: leaf for name, leaf in new.items() if name[1] != head}
    if not any(name[1] == "encoder" for name in new):
        name = next(name for name in old if name[:2] == ("params", "encoder"))
        there = [
            f"{'/'.join(key[1:])} {[*leaf.shape]}"
            for key, leaf in source.items()
            if key[0] == "params"
        ]
        raise UserError(
            f"{path} has no variable of this encoder, such as {'/'.join(name[1:])} "
            f"{[*old[name].shape]}; it has {', '.join(there[:_SHOWN])}. Choose the same --encoder."
        )
    values = {name: np.asarray(leaf, old[name].dtype) for name, leaf in new.items()}
    placed = runtime.replicate(values, session.mesh)
    merged = jax.tree.unflatten(jax.tree.structure(variables), {**old, **placed}.values())
    params = _laid_like(lambda tree: tree, merged["params"], state.params)
    stats = merged["batch_stats"]
    copy = lambda tree, like: _laid_like(
        lambda tree: jax.tree.map(jnp.copy, target_parts(tree)) if like else {}, tree, like
    )
    state = state.replace(
        params=params,
        batch_stats=stats,
        target_params=copy(params, state.target_params),
        target_batch_stats=copy(stats, state.target_batch_stats),
        opt_state=_laid_like(session.recipe.optimizer.init, params, state.opt_state),
    )
    used = {_source_of(source, name) for name in new}
    record = {
        "path": str(path),
        "heads": heads,
        "step": step,
        "digest": _digest(source),
        "taken": sorted(map("/".join, new)),
        "left": sorted("/".join(name) for name in old if name not in new),
        "unused": sorted("/".join(name) for name in source if name not in used),
    }
    return Start(state, record, _note(path, step, old, new, source))


def begin(session: Session, folder: RunFolder, start: Start | None, say: Any) -> None:
    """Saves the first state of a run that starts from weights, unless it has a checkpoint.

    Args:
      session: of the run.
      folder: its folder, with init.json if it starts from weights.
      start: the state; None: read again as init.json says.
      say: called with a note on what was taken.

    Raises:
      UserError: the weights were changed since the run was created.
    """
    record = folder.init_record()
    if record is None:
        return
    with Checkpoints(folder.checkpoints) as checkpoints:
        if checkpoints.latest is not None:
            return
        if start is None:
            again = lambda: start_from(session, record.path, heads=record.heads)
            start = runtime.run_on_all(again)
            if start.record["digest"] != record.digest:
                raise UserError(
                    f"{record.path} was changed since {folder.folder} was started from it; "
                    "start again with --overwrite."
                )
        say(start.note)
        checkpoints.save(start.state, 0)


def check_same_start(folder: RunFolder, path: str | os.PathLike[str] | None, heads: bool) -> None:
    """Raises UserError unless an existing run was started from these weights."""
    record = folder.init_record()
    before = None if record is None else (record.path, record.heads)
    now = None if path is None else (str(_absolute(path)), heads)
    if before != now:
        words = lambda one: (
            "no weights" if one is None else one[0] + f" ({'with' if one[1] else 'without'} heads)"
        )
        raise UserError(
            f"{folder.folder} is a run that started from {words(before)}, not {words(now)}. "
            f"Continue it as it is with `jaxclr resume {folder.folder}`, replace it with "
            "--overwrite, or give another folder with --out."
        )


def _absolute(path: str | os.PathLike[str]) -> FilePath:
    given = expanded(path)
    return given if in_bucket(given) else given.absolute()


def _read(
    session: Session, path: FilePath, heads: bool
) -> tuple[int | None, dict[Path, np.ndarray]]:
    """The step, if there is one, and the variables by path."""
    if path.is_dir():
        folder = RunFolder(path)
        if not folder.exists:
            raise UserError(f"{path} is not a run; give the folder of a run or a file of weights.")
        step, variables = read_variables(folder, ("encoder", *(HEADS if heads else ())))
        return step, _flat(jax.device_get(variables))
    encoder = session.config.encoder
    if isinstance(encoder, tuple):
        raise UserError(
            f"{path} holds one encoder, and encoder is a tuple of {len(encoder)}; give a run."
        )
    weights = read_encoder(path, encoder).variables
    return None, _flat({kind: {"encoder": tree} for kind, tree in weights.items()})


def _flat(tree: Tree) -> dict[Path, Any]:
    """The leaves by their path, in their order."""
    word = lambda key: str(getattr(key, "key", getattr(key, "idx", key)))
    return {tuple(map(word, path)): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _source_of(source: dict[Path, np.ndarray], name: Path) -> Path | None:
    """A name in the source; of the encoders of single views, the first stands for all."""
    shared = (*name[:2], *name[3:]) if name[2].startswith("modules_") else name
    first = (*shared[:2], "modules_0", *shared[2:])
    return next((one for one in (name, shared, first) if one in source), None)


def _fitting(source: dict[Path, np.ndarray], name: Path, like: Any) -> np.ndarray | None:
    """The variable of the source; None if there is none of this shape."""
    if (key := _source_of(source, name)) is None:
        return None
    value = source[key]
    if name[-1] == "positions" and value.ndim == len(like.shape) == 3:
        value = resize_positions(value, like.shape[1])
    return value if value.shape == like.shape else None


def _laid_like(function: Any, argument: Tree, like: Tree) -> Tree:
    """The function of the argument, compiled, with the shardings of a tree."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    return jax.jit(function, out_shardings=shardings)(argument)


def _digest(source: dict[Path, np.ndarray]) -> str:
    """Eight hexadecimal digits of all variables and their names."""
    arrays = {"/".join(name): jnp.asarray(leaf) for name, leaf in source.items()}
    return f"{zlib.crc32(json.dumps(digests(arrays), sort_keys=True).encode()):08x}"


def _note(
    path: FilePath, step: int | None, old: dict, new: dict, source: dict[Path, np.ndarray]
) -> str:
    parts = dict.fromkeys(name[1] for name in old)
    counts = {part: [sum(n[1] == part for n in names) for names in (new, old)] for part in parts}
    taken = ", ".join(f"{part} ({a} of {b} variables)" for part, (a, b) in counts.items() if a)
    left = [name for name in old if name not in new and counts[name[1]][0]]
    parts_left = [part for part, (count, _) in counts.items() if not count]
    there = lambda name: (
        f"{[*source[key].shape]} there, {[*old[name].shape]} here"
        if (key := _source_of(source, name))
        else "not there"
    )
    said = [f"{'/'.join(name[1:])} ({there(name)})" for name in left[:_SHOWN]]
    said += [f"{len(left) - _SHOWN} more"] * (len(left) > _SHOWN) + parts_left
    at = "" if step is None else f", step {step}"
    text = f"Weights of {path}{at}: taken are {taken}."
    of = lambda name: source[_source_of(source, name) or name]
    if resized := [name for name in new if of(name).shape != old[name].shape]:
        text += f" Interpolated: {', '.join('/'.join(name[1:]) for name in resized)}."
    return text + (f" Initialized: {', '.join(said)}." if said else "")
