"""What the encoder makes of a few fixed images, at the start, in the middle and at the end of a run."""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxclr.affinity import unit_rows
from jaxclr.data import Split, Stream
from jaxclr.runs.files import write_atomically, writing
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.scanned import represent_images
from jaxclr.steps.state import State
from jaxclr.steps.views import take_views
from jaxclr.training.session import Session

Array = jax.Array

GALLERY, QUERIES = 1000, 400  # training images, and images to look up among them
PAIRED = 96  # queries whose two views make an affinity matrix
SHOWN = 6  # queries whose views are kept as pictures
MOST_VIEWS = 8
CHUNK = 100  # images embedded at once
THUMBNAIL = 32  # pixels


class Fixed(NamedTuple):
    """Images that stay the same from start to end, and their labels, -1 where there are none."""

    gallery: np.ndarray
    gallery_labels: np.ndarray
    queries: np.ndarray
    query_labels: np.ndarray


class Snapshots:
    """Writes snapshots/images.npz once, and snapshots/STEP.npz at the start, in the middle and at the end.

    images.npz: thumbnails of gallery and queries, uint8 [n, h, w, C], their labels, the names of the classes, and the views
    of a few queries, view_0, view_1, ... STEP.npz, float16: unit representations of gallery and queries without
    augmentation, norms by running statistics; and unit embeddings of two views of the first queries, `rows` and `columns`,
    norms by these queries' statistics, as in training: of an untrained encoder running ones make all images alike.
    """

    def __init__(self, session: Session, run: RunFolder):
        self._session, self._run = session, run
        self._represent, self._embed_pair = compile_represent(session), compile_embed_pair(session)

    def due(self, step: int) -> bool:
        return self._session.config.observe_every > 0 and step in (0, self._session.steps // 2, self._session.steps)

    def take(self, state: State, step: int) -> None:
        """Writes what the encoder makes of the fixed images after so many steps; the host waits for it."""
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        # On one device: rows need not divide.
        variables = jax.device_put(jax.device_get(variables), jax.local_devices()[0])
        images = self._images
        represent = lambda some: np.concatenate([self._represent(variables, chunk) for chunk in _chunks(some)])[: len(some)]
        rows, columns = self._embed_pair(variables, images.queries[:PAIRED])
        arrays = {
            "gallery": represent(images.gallery),
            "queries": represent(images.queries),
            "rows": np.asarray(rows),
            "columns": np.asarray(columns),
        }
        with writing(self._run.folder):
            self._run.snapshots.mkdir(exist_ok=True)
            if not (self._run.snapshots / "images.npz").exists():
                _write(self._run.snapshots / "images.npz", self._pictures())
            _write(self._run.snapshots / f"{step}.npz", arrays)

    @functools.cached_property
    def _images(self) -> Fixed:
        return fixed_images(self._session)

    def _pictures(self) -> dict[str, np.ndarray]:
        images, recipe = self._images, self._session.recipe
        shown = images.queries[:SHOWN]
        draw = jax.jit(functools.partial(take_views, recipe=recipe))
        views = draw(jnp.int32(0), shown, jnp.arange(len(shown)))
        pixels = lambda view: np.asarray(view, np.float32) * recipe.std + recipe.mean
        drawn = {
            f"view_{index}": np.clip(255 * pixels(view) + 0.5, 0, 255).astype(np.uint8)
            for index, view in enumerate(views[:MOST_VIEWS])
        }
        return {
            "gallery": _thumbnails(images.gallery),
            "gallery_labels": images.gallery_labels,
            "queries": _thumbnails(images.queries),
            "query_labels": images.query_labels,
            "classes": np.array(self._session.dataset.classes, str),
            **drawn,
        }


def compile_represent(session: Session) -> Callable[[Any, np.ndarray], Array]:
    """Unit representations without augmentation, [b, F], of variables and images."""
    recipe = session.recipe
    return jax.jit(lambda variables, images: _half(represent_images(variables, images, recipe=recipe)))


def compile_embed_pair(session: Session) -> Callable[[Any, np.ndarray], tuple[Array, ...]]:
    """Unit embeddings of two views, [b, D] each, of variables and images."""
    recipe = session.recipe
    network = recipe.method.network(session.config.encoder, None).clone(predictor=None)

    @jax.jit
    def embed_pair(variables: Any, images: Array) -> tuple[Array, ...]:
        views = take_views(jnp.int32(0), images, jnp.arange(len(images)), recipe=recipe)
        embed = lambda view: network.apply(variables, view, train=True, mutable=["batch_stats"])[0].embedding
        return tuple(_half(embed(view)) for view in (views * 2)[:2])

    return embed_pair


def _half(rows: Array) -> Array:
    return unit_rows(rows.astype(jnp.float32)).astype(jnp.float16)


def fixed_images(session: Session) -> Fixed:
    """Images spread evenly over training and test split; queries are training images too where there is no test split."""
    train, test = session.dataset.train, session.dataset.test
    some = functools.partial(_some, session)
    if test is not None:
        gallery = some(train, _spread(train.size, GALLERY))
        return Fixed(*gallery, *some(test, _spread(test.size, QUERIES)))
    places = _spread(train.size, GALLERY + QUERIES)
    queries = places[:: (GALLERY + QUERIES) // QUERIES][:QUERIES]
    return Fixed(*some(train, np.setdiff1d(places, queries)), *some(train, queries))


def _spread(count: int, wanted: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(count, wanted)).astype(int)


def _some(session: Session, split: Split | Stream, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images of these places and their labels."""
    if isinstance(split, Split):
        labels = np.full(len(places), -1) if split.labels is None else split.labels[places]
        return split.examples[places], labels
    rows = list(split.plain(session.plain_size, batch=CHUNK, indices=places.tolist()))
    images = np.stack([image for some in rows for (image,) in some.made])
    return images, np.concatenate([some.labels for some in rows])


def _chunks(images: np.ndarray) -> Sequence[np.ndarray]:
    """CHUNK images at a time; the last ones are filled up."""
    count = -(-len(images) // CHUNK)
    return np.split(images[np.arange(count * CHUNK) % len(images)], count)


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """At most THUMBNAIL pixels high and wide."""
    height, width = images.shape[1:3]
    scale = min(1.0, THUMBNAIL / max(height, width))
    if scale == 1:
        return images
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = lambda image: Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    small = [np.asarray(picture(image).resize(size, Image.Resampling.BOX)) for image in images]
    return np.stack(small).reshape(len(images), size[1], size[0], -1)


def _write(path, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
