"""Arrays of images as uint8 [N, H, W, C], where nothing is lost."""

from collections.abc import Sequence

import numpy as np

from jaxclr.data.source_options import Layout
from jaxclr.errors import UserError

ROWS = 256  # images converted at a time, since the products are larger than uint8


def looks_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether a shape is more plausible as [N, C, H, W] than as [N, H, W, C]."""
    if len(shape) != 4:
        return False
    _, first, height, width = shape
    return width > 4 and (first <= 4 or first < height == width)


def channels_last_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """The shape [N, H, W, C] of images of shape [N, H, W] or of rank 4 in this layout."""
    if len(shape) == 3:
        return *shape, 1
    return (shape[0], *shape[2:], shape[1]) if layout == "NCHW" else shape


def channels_last(images: np.ndarray, layout: Layout) -> np.ndarray:
    """The images [N, H, W, C] of images [N, H, W] or of rank 4 in this layout, a view."""
    if images.ndim == 3:
        return images[..., None]
    return np.moveaxis(images, 1, -1) if layout == "NCHW" else images


def to_bytes(
    name: str, keys: Sequence[str], splits: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Images of all splits as uint8, and a sentence for the user if that is a conversion.

    Integers must be in 0 to 255. Floats must be whole numbers in 0 to 255, or those divided by 255;
    if all are in [0, 1], they are the latter. Booleans become 0 and 255.

    Args:
      name: of the file.
      keys: names of the arrays.
      splits: images of one type, [N, H, W, C].

    Raises:
      UserError: something would be lost; the message has the line of NumPy that converts.
    """
    dtypes = {images.dtype for images in splits}
    if dtypes == {np.dtype(np.uint8)}:
        return [np.ascontiguousarray(images) for images in splits], ()
    low = min(float(images.min()) for images in splits)
    high = max(float(images.max()) for images in splits)
    is_float = any(dtype.kind == "f" for dtype in dtypes)
    # NaN fails the comparison.
    whole = low >= 0 and high <= 255
    scale = 255 if high <= 1 and (is_float or dtypes == {np.dtype(bool)}) else 1
    converted = [_scaled(images, scale) if whole else None for images in splits]
    if any(images is None for images in converted):
        kinds = ", ".join(sorted(str(dtype) for dtype in dtypes))
        raise UserError(
            f"{name}: {keys[0]} must be uint8 of 0 to 255, got {kinds} from {low:g} to {high:g}"
            f"{' with fractions' * whole}. Convert them first, for instance "
            f"{_line(keys[0], low, high)}."
        )
    of = f" times {scale}" if scale > 1 else ""
    kinds = " and ".join(sorted(str(dtype) for dtype in dtypes))
    return [images for images in converted if images is not None], (
        f"Images of {kinds}{of} are converted to uint8; nothing is lost.",
    )


def _scaled(images: np.ndarray, scale: int) -> np.ndarray | None:
    """The images times `scale` as uint8; None if these are not whole numbers."""
    result = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), ROWS):
        part = images[start : start + ROWS]
        if part.dtype.kind == "f":
            scaled = part.astype(np.float64) * scale
            rounded = np.round(scaled)
            # Dividing by 255 and rounding to the type of the array leaves a few units of rounding.
            tolerance = min(0.25, 2 * scale * np.finfo(part.dtype).eps) if scale > 1 else 0.0
            if np.abs(scaled - rounded).max() > tolerance:
                return None
            part = rounded
        result[start : start + ROWS] = part * np.uint8(scale) if part.dtype == bool else part
    return result


def _line(key: str, low: float, high: float) -> str:
    """A line of NumPy that converts an array that is not converted here."""
    if low >= 0 and high <= 1:
        return f"{key} = np.round({key} * 255).astype(np.uint8)"
    if low >= 0 and high <= 255:
        return f"{key} = np.round({key}).astype(np.uint8)"
    if np.isfinite(low) and np.isfinite(high):
        return f"{key} = np.round(({key} - {low:g}) * (255 / {high - low:g})).astype(np.uint8)"
    return f"{key} = np.round(255 * np.clip(np.nan_to_num({key}), 0, 1)).astype(np.uint8)"
