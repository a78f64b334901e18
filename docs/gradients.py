"""Pictures of what a gradient step on each loss does to the affinity matrix of one fixed batch.

The arrays and settings are those with which the tests check the loss (tests/losses/entries). The
batch has 16 images in four groups: images of a group are alike, and so are the views of an image.
"""

import base64
import functools
import io
import json
import os
from collections.abc import Callable
from typing import NamedTuple

# Much is compiled and little computed here; the notebook's kernel does not inherit this.
_FLAGS = os.environ.get("XLA_FLAGS")
os.environ["XLA_FLAGS"] = f"{_FLAGS or ''} --xla_backend_optimization_level=0"

import battery
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from PIL import Image

from jaxclr import losses
from jaxclr.affinity import unit_rows

jax.devices()  # reads the flags
if _FLAGS is None:
    del os.environ["XLA_FLAGS"]
else:
    os.environ["XLA_FLAGS"] = _FLAGS

ROWS, WIDTH, GROUPS = 16, 6, 4


class Picture(NamedTuple):
    """The cosines of two views [B, B], and their change along a descent step, scaled to about 1."""

    affinity: np.ndarray
    change: np.ndarray


class Grouped(np.random.Generator):
    """A generator whose first normal matrix of so many rows has four groups of like rows."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))
        self._fresh = True

    def normal(self, loc=0.0, scale=1.0, size=None):
        drawn = super().normal(loc, scale, size)
        if self._fresh and np.shape(drawn)[-2:] == (ROWS, WIDTH):
            self._fresh = False
            centers = super().normal(size=(GROUPS, WIDTH))
            drawn = 0.6 * drawn + 1.2 * np.repeat(centers, ROWS // GROUPS, axis=0)
        return drawn


def picture(entry: battery.Entry) -> Picture | None:
    """The picture of a loss with the settings of an entry; None without embeddings of a batch."""
    arrays = [
        jnp.asarray(array, np.float32 if np.issubdtype(array.dtype, np.floating) else None)
        for array in entry.make(Grouped(), ROWS, WIDTH)
    ]
    axes = entry.spread or (0,) * len(arrays)
    moving = tuple(
        i
        for i, array in enumerate(arrays)
        if jnp.issubdtype(array.dtype, jnp.floating) and i not in entry.stopped
    )

    def views(*arrays):
        """All [B, D] of the batch, in the order of the arguments."""
        found = []
        for array, axis in zip(arrays, axes, strict=True):
            if jnp.issubdtype(array.dtype, jnp.floating):
                if array.ndim == 2 and axis == 0:
                    found.append(array)
                elif array.ndim == 3 and axis == 1:
                    found.extend(array)
        return found

    if not views(*arrays):
        return None
    gradient = jax.jit(jax.grad(lambda *a: entry(*a), argnums=moving))(*arrays)
    step = [jnp.zeros_like(a) for a in arrays if jnp.issubdtype(a.dtype, jnp.floating)]
    floats = [i for i, a in enumerate(arrays) if jnp.issubdtype(a.dtype, jnp.floating)]
    for i, g in zip(moving, gradient, strict=True):
        step[floats.index(i)] = -g

    def affinity(*of_floats):
        whole = list(arrays)
        for i, array in zip(floats, of_floats, strict=True):
            whole[i] = array
        first, *others = views(*whole)
        second = next((v for v in others if v.shape == first.shape), first)
        return unit_rows(first) @ unit_rows(second).T

    before, change = jax.jvp(affinity, [arrays[i] for i in floats], step)
    largest = float(jnp.quantile(jnp.abs(change), 0.97))  # a few pairs may move much more
    return Picture(np.asarray(before), np.asarray(change) / (largest or 1.0))


def png(values: np.ndarray, scale: int = 10) -> bytes:
    """A matrix of values from -1 (blue) over 0 (white) to 1 (red) as a PNG."""
    colors = matplotlib.colormaps["RdBu_r"]((np.clip(values, -1, 1) + 1) / 2, bytes=True)
    image = Image.fromarray(np.kron(colors[..., :3], np.ones((scale, scale, 1), np.uint8)))
    buffer = io.BytesIO()
    image.quantize(64).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def all_pictures() -> dict[str, Picture]:
    """By the name of the loss: the picture of its first entry."""
    found: dict[str, Picture] = {}
    for entry in battery.entries():
        name = entry.name.partition("-")[0]
        if name not in found and (made := picture(entry)):
            found[name] = made
    return found


DESCENTS = {
    "alignment": losses.alignment,
    "uniformity": lambda q, k: losses.uniformity(q) + losses.uniformity(k),
    "info_nce": functools.partial(losses.info_nce, temperature=0.2),
    "nt_xent": functools.partial(losses.nt_xent, temperature=0.2),
    "symmetric_loss": losses.symmetric_loss,
    "sim_affinity": functools.partial(losses.sim_affinity, temperature=0.2),
    "sim_whitening": functools.partial(losses.sim_whitening, logit_divisor=WIDTH),
    "sim_trace": losses.sim_trace,
    "barlow_twins": losses.barlow_twins,
    "vicreg": losses.vicreg,
}
STEPS = (0, 2, 5, 10, 20, 40, 80, 160)
LENGTH = 0.1  # of a step, of all embeddings together


def descent(loss: Callable) -> list[dict[str, str]]:
    """Frames of the matrix while steps of equal length along the gradient minimize a loss."""
    q, k = (jnp.asarray(v, jnp.float32) for v in battery.TWO_VIEWS(Grouped(), ROWS, WIDTH))

    def step(views, _):
        value, gradient = jax.value_and_grad(loss_of)(views)
        norm = jnp.sqrt(jnp.sum(gradient**2)) + 1e-9
        return views - LENGTH * jnp.sqrt(views.size / WIDTH) * gradient / norm, (views, value)

    loss_of = lambda views: loss(views[0], views[1])
    _, (views, values) = jax.jit(lambda v: jax.lax.scan(step, v, length=STEPS[-1] + 1))(
        jnp.stack([q, k])
    )
    frames = []
    for at in STEPS:
        cosines = unit_rows(views[at, 0]) @ unit_rows(views[at, 1]).T
        encoded = base64.b64encode(png(np.asarray(cosines), scale=8)).decode()
        frames.append(
            {
                "step": str(at),
                "loss": f"{float(values[at]):.3f}",
                "image": f"data:image/png;base64,{encoded}",
            }
        )
    return frames


def descents() -> str:
    """The frames of all losses as a script for the page that plays them."""
    frames = {name: descent(loss) for name, loss in DESCENTS.items()}
    return f"const DESCENT = {json.dumps(frames)};\n"
