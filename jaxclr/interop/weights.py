"""Files of weights: safetensors, and PyTorch's where PyTorch is installed."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes  # noqa: F401  numpy knows bfloat16 by it, which safetensors asks numpy for
import numpy as np

from jaxclr.errors import UserError, optional

TORCH_SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".ckpt")


def read_weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of a file by name, those of a nested dict by their dotted path.

    Nothing but tensors and plain values is unpickled.

    Raises:
      UserError: there is no such file, it is damaged or of another kind, or it needs PyTorch, which
        is not installed.
    """
    if not path.is_file():
        raise UserError(
            f"There is no file {path}; give a .safetensors file, or a PyTorch checkpoint (.pth, "
            ".pth.tar, ...)."
        )
    if path.suffix == ".safetensors":
        load_file = optional("safetensors.numpy").load_file
        try:
            return load_file(path)
        except (optional("safetensors").SafetensorError, OSError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} cannot be read as safetensors: {_first_line(error)}."
            ) from error
    if path.suffix not in TORCH_SUFFIXES:
        raise UserError(
            f"{path} ends in '{path.suffix}'; weights are read from .safetensors, or from "
            f"{', '.join(TORCH_SUFFIXES)} as PyTorch writes them."
        )
    return dict(_flat(_unpickle(path)))


def write_safetensors(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], notes: Mapping[str, str]
) -> None:
    """Writes arrays, which must be contiguous, and notes for people, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        optional("safetensors.numpy").save_file(dict(arrays), part, metadata=dict(notes))
        part.replace(path)
    except optional("safetensors").SafetensorError as error:  # of a full disk, too
        raise UserError(f"{path} cannot be written: {_first_line(error)}.") from error
    finally:
        part.unlink(missing_ok=True)


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
            f"unpickled because that could run code: {_first_line(error)}. If you trust it, turn "
            "its state_dict into a .safetensors file."
        ) from error


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of nested dicts; what is neither, such as an epoch, is left out."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))
    elif hasattr(tree, "detach"):
        tensor = tree.detach()
        yield prefix, (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
