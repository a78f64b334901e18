"""Files of weights: safetensors, and PyTorch's where PyTorch is installed."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  numpy knows bfloat16 by it, which safetensors asks numpy for
import numpy as np

from jaxclr.errors import UserError, optional, reason
from jaxclr.paths import Path
from jaxclr.runs import buckets
from jaxclr.runs.files import write_atomically

FLOATS = ("float16", "bfloat16", "float32", "float64")
TORCH_SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".ckpt")


class Stored(NamedTuple):
    """An array in a file, whose shape is known before it is read.

    Attributes:
      shape: its shape.
      read: reads it; raises UserError unless it is a dense array of a type in `FLOATS`.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def read_weights(path: Path) -> dict[str, Stored]:
    """All arrays of a file by name, those of a nested dict by their dotted path.

    Nothing but tensors and plain values is unpickled, and no array is read yet.

    Raises:
      UserError: there is no such file, it is damaged or of another kind, or it needs PyTorch, which
        is not installed.
    """
    path = buckets.copied(path)
    if not path.is_file():
        raise UserError(
            f"There is no file {path}; give a .safetensors file, or a PyTorch checkpoint (.pth, "
            ".pth.tar, ...)."
        )
    if path.suffix == ".safetensors":
        safe_open = optional("safetensors").safe_open
        try:
            file = safe_open(path, framework="np")
            return {name: _of_safetensors(file, name) for name in file.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors and the system each raise their own
            raise UserError(f"{path} cannot be read as safetensors: {reason(error)}.") from error
    if path.suffix not in TORCH_SUFFIXES:
        raise UserError(
            f"{path} ends in '{path.suffix}'; weights are read from .safetensors, or from "
            f"{', '.join(TORCH_SUFFIXES)} as PyTorch writes them."
        )
    try:
        return dict(flat_tensors(_unpickle(path)))
    except RecursionError as error:
        raise UserError(
            f"{path} is nested too deeply, or contains itself; save its state_dict alone."
        ) from error


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], notes: Mapping[str, str]
) -> None:
    """Writes arrays, which must be contiguous, and notes for people, whole or not at all."""
    content = optional("safetensors.numpy").save(dict(arrays), metadata=dict(notes))
    write_atomically(path, content)


def _unpickle(path: pathlib.Path) -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports]  not every user has it
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path} needs PyTorch: pip install 'jaxclr[torch]', or where PyTorch is "
            "installed turn its state_dict into a .safetensors file (safetensors.torch.save_file)."
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile, torch and the system each raise their own
        raise UserError(
            f"{path} is damaged, or holds more than tensors and plain values, which are not "
            f"unpickled because that could run code: {reason(error)}. If you trust it, turn "
            "its state_dict into a .safetensors file."
        ) from error


def flat_tensors(tree: Any, prefix: str = "") -> Iterator[tuple[str, Stored]]:
    """The tensors of nested dicts; what is neither, such as an epoch, is left out."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from flat_tensors(value, f"{prefix}.{name}" if prefix else str(name))
    elif hasattr(tree, "detach"):
        yield prefix, _of_torch(tree, prefix)


def _of_safetensors(file: Any, name: str) -> Stored:
    header = file.get_slice(name)
    dtype = header.get_dtype()
    right = dtype in ("F16", "BF16", "F32", "F64")
    read = (lambda: file.get_tensor(name)) if right else functools.partial(_refuse, name, dtype)
    return Stored(tuple(header.get_shape()), read)


def _of_torch(tensor: Any, name: str) -> Stored:
    """A tensor; one may have any shape without memory for it, as a view of a single number."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    layout = str(tensor.layout).removeprefix("torch.")
    kinds = {
        "nested": tensor.is_nested,
        layout: layout != "strided",
        "quantized": tensor.is_quantized,
        "meta": tensor.is_meta,
        dtype: dtype not in FLOATS,
    }
    shape = () if tensor.is_nested else tuple(tensor.shape)
    for kind, is_of_it in kinds.items():
        if is_of_it:
            return Stored(shape, functools.partial(_refuse, name, kind))
    return Stored(shape, lambda: tensor.detach().float().numpy())


def _refuse(name: str, kind: str) -> np.ndarray:
    raise UserError(
        f"has {name} as {kind}; dense arrays of {', '.join(FLOATS)} are read, so convert it first"
    )
