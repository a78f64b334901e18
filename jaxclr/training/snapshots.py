"""Snapshots of the embeddings of a few fixed examples."""

import functools
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxclr import trees
from jaxclr.affinity import unit_rows
from jaxclr.data import Records, Split, Stream
from jaxclr.evaluation.subject import on_one_device
from jaxclr.paths import Path
from jaxclr.runs.files import make_folder, write_atomically, writing
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.examples import apply_in_batches, batches
from jaxclr.steps.recipe import with_whole_batch
from jaxclr.steps.scanned import represent_images
from jaxclr.steps.state import State
from jaxclr.steps.views import take_views
from jaxclr.training.session import Session

Array = jax.Array
Tree = Any

GALLERY, QUERIES = 1000, 400  # examples to search in, and to search for
PAIRED = 96  # queries whose two views form an affinity matrix
SHOWN = 6  # queries whose views are stored as images
MAX_VIEWS = 8
THUMBNAIL = 32  # pixels
CHANNELS = 16  # of a picture that are stored


class Fixed(NamedTuple):
    """The examples of all snapshots, and their labels; -1 without labels."""

    gallery: Tree
    gallery_labels: np.ndarray
    queries: Tree
    query_labels: np.ndarray


class Snapshots:
    """Writes snapshots at the start, in the middle and at the end of a run.

    Files in the folder snapshots/:

    - STEP.npz, float16. `gallery` and `queries`: unit representations without augmentation, norms
      with running statistics. `rows` and `columns`: unit embeddings of two views of the first
      queries, norms with the statistics of these queries, as in training; with the running
      statistics of an untrained encoder all embeddings are alike.
    - labels.npz: labels of gallery and queries, and the names of the classes.
    - images.npz, if the data are images: thumbnails of gallery and queries, uint8 [n, h, w, C], and
      the views of a few queries, view_0, view_1, ...
    """

    def __init__(self, session: Session, run: RunFolder):
        self._session, self._run = session, run
        self._represent = compile_unit_represent(session)
        self._embed_pair = compile_embed_pair(session)

    def due(self, step: int) -> bool:
        """Whether a snapshot is due after this many steps."""
        last = self._session.steps
        return self._session.config.observe_every > 0 and step in (0, last // 2, last)

    def take(self, state: State, step: int) -> None:
        """Writes the embeddings of the fixed examples at this step; waits for the devices."""
        variables, fixed = on_one_device(state), self._fixed
        represent = functools.partial(self._represent, variables)
        rows, columns = self._embed_pair(variables, trees.take(fixed.queries, slice(PAIRED)))
        arrays = {
            "gallery": apply_in_batches(represent, fixed.gallery),
            "queries": apply_in_batches(represent, fixed.queries),
            "rows": np.asarray(rows),
            "columns": np.asarray(columns),
        }
        with writing(self._run.folder):
            make_folder(self._run.snapshots)
            if not (self._run.snapshots / "labels.npz").exists():
                _write(self._run.snapshots / "labels.npz", self._labels())
                if is_displayable(fixed.queries):
                    _write(self._run.snapshots / "images.npz", self._images())
            _write(self._run.snapshots / f"{step}.npz", arrays)

    @functools.cached_property
    def _fixed(self) -> Fixed:
        return fixed_examples(self._session)

    def _labels(self) -> dict[str, np.ndarray]:
        return {
            "gallery_labels": self._fixed.gallery_labels,
            "query_labels": self._fixed.query_labels,
            "classes": np.array(self._session.dataset.classes, str),
        }

    def _images(self) -> dict[str, np.ndarray]:
        fixed, recipe = self._fixed, self._session.recipe
        shown = fixed.queries[:SHOWN]
        draw = jax.jit(functools.partial(take_views, recipe=recipe))
        views = draw(jnp.int32(0), shown, jnp.arange(len(shown)))
        mean, std = np.asarray(recipe.mean), np.asarray(recipe.std)
        pixels = lambda view: np.asarray(view, np.float32) * std + mean
        drawn = {
            f"view_{index}": np.clip(255 * pixels(view) + 0.5, 0, 255).astype(np.uint8)[
                ..., :CHANNELS
            ]
            for index, view in enumerate(views[:MAX_VIEWS])
            if getattr(view, "shape", ())[3:] == shown.shape[3:]
        }
        return {
            "gallery": _thumbnails(fixed.gallery),
            "queries": _thumbnails(fixed.queries),
            **drawn,
        }


def compile_unit_represent(session: Session) -> Callable[[Tree, Tree], Array]:
    """A function of variables and examples: unit representations, [b, F], not augmented."""
    represent = functools.partial(represent_images, recipe=session.recipe)
    return jax.jit(lambda variables, examples: _unit_float16(represent(variables, examples)))


def compile_embed_pair(session: Session) -> Callable[[Tree, Tree], tuple[Array, ...]]:
    """A function of variables and examples: unit embeddings of two views, [b, D] each."""
    recipe = session.recipe
    network = recipe.network.clone(predictor=None)

    def embed_pair(variables: Tree, examples: Tree) -> tuple[Array, ...]:
        indices = jnp.arange(trees.size_of(examples))
        views = take_views(jnp.int32(0), examples, indices, recipe=recipe)
        rngs = {"dropout": jax.random.key(0)}
        apply = functools.partial(
            network.apply, variables, train=True, mutable=["batch_stats"], rngs=rngs
        )
        pair = (list(enumerate(views)) * 2)[:2]
        return tuple(_unit_float16(apply(x, view=view)[0].embedding) for view, x in pair)

    return jax.jit(with_whole_batch(embed_pair))


def _unit_float16(rows: Array) -> Array:
    return unit_rows(rows.astype(jnp.float32)).astype(jnp.float16)


def is_displayable(data: Tree) -> bool:
    """Whether examples can be shown as images: one uint8 array [n, H, W, C]."""
    return getattr(data, "ndim", 0) == 4 and data.dtype == np.uint8


def fixed_examples(session: Session) -> Fixed:
    """Evenly spaced examples: a gallery of the training split and queries of the test split.

    Without a test split, queries are training examples that are not in the gallery.
    """
    train, test = session.dataset.train, session.dataset.test
    some = functools.partial(_some, session)
    if test is not None:
        gallery = some(train, _spread(train.size, GALLERY))
        return Fixed(*gallery, *some(test, _spread(test.size, QUERIES)))
    rows = _spread(train.size, GALLERY + QUERIES)
    queries = rows[:: (GALLERY + QUERIES) // QUERIES][:QUERIES]
    return Fixed(*some(train, np.setdiff1d(rows, queries)), *some(train, queries))


def _spread(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` evenly spaced indices below `count`."""
    return np.linspace(0, count - 1, min(count, wanted)).astype(int)


def _some(
    session: Session, split: Split | Stream | Records, rows: np.ndarray
) -> tuple[Tree, np.ndarray]:
    """The examples of some rows and their labels."""
    found = batches(split, size=session.plain_size, rows=rows, replace_damaged=True)
    parts = [(some.data, some.labels) for some in found]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """Images of at most THUMBNAIL pixels in height and width and CHANNELS channels."""
    images = images[..., :CHANNELS]
    height, width = images.shape[1:3]
    scale = min(1.0, THUMBNAIL / max(height, width))
    if scale == 1:
        return images
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resize = lambda plane: np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX))
    planes = images.transpose(0, 3, 1, 2)
    small = np.stack([resize(plane) for image in planes for plane in image])
    return small.reshape(*planes.shape[:2], *small.shape[1:]).transpose(0, 2, 3, 1)


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    write_atomically(path, buffer.getvalue())
