"""Fine-tuning of an encoder with a linear head, which the protocols `semi` and `finetune` share."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from annotated_types import Ge, Gt, Interval, MinLen

from jaxclr.data import Split, Stream
from jaxclr.errors import UserError
from jaxclr.evaluation.images import image_batches, labels_of
from jaxclr.evaluation.linear import LinearFit, linear_logits
from jaxclr.evaluation.protocols.base import Protocol, Subject, check_known

Array = jax.Array
Tree = Any

_JUDGED = 250  # images at once
_momentum = optax.trace(decay=0.9, nesterov=True)


@dataclasses.dataclass(frozen=True)
class FineTuning(Protocol):
    """Encoder and a linear head trained on labels by SGD: Nesterov momentum 0.9, cosine schedule, no decay of weights."""

    learning_rates: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (0.1, 0.03, 0.3)
    """Peaks, whatever the batch. Of several, the one that does best on held-out labelled images, of equals the first, is
    trained again on all of them; the first, too, where no class has a label to spare."""

    epochs: Annotated[int, Ge(1)] = 60
    """Passes over the labelled images."""

    least_steps: Annotated[int, Ge(1)] = 300
    """Steps of a training at the least, however few images there are."""

    batch_size: Annotated[int, Ge(1)] = 64
    """Images in a step; all of them if there are fewer."""

    held_out: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    """Share of the labelled images on which a learning rate is chosen."""


def checked_labels(subject: Subject) -> np.ndarray:
    """Labels of the training images, int32 [N], once those of test are known to be among them."""
    labels = labels_of(subject.train)
    check_known(labels, labels_of(subject.test), subject.classes)
    return labels


def tune(
    subject: Subject, rows: np.ndarray, labels: np.ndarray, settings: FineTuning, *, seed: int
) -> tuple[float, dict[str, Any]]:
    """Test accuracy after fine-tuning on some training images, and the learning rate that they chose.

    Args:
      subject: encoder and images.
      rows: places of the labelled images in the training split, [n].
      labels: their labels, [n].
      settings: of the protocol.
      seed: of the validation split, the order of images, and their augmentation.

    Raises:
      UserError: the last training diverged.
    """
    rates = settings.learning_rates
    batch = min(settings.batch_size, len(rows))
    train = functools.partial(_train, subject, settings=settings, batch=batch, seed=seed)
    best = 0
    chosen_on = hold_out(labels, settings.held_out, seed)
    if len(rates) > 1 and len(chosen_on):
        kept = np.setdiff1d(np.arange(len(rows)), chosen_on)
        judged = [_accuracy(subject, train(rows[kept], rate=rate), subject.train, rows[chosen_on]) for rate in rates]
        best = int(np.argmax(judged))
    tuned = train(rows, rate=rates[best])
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(tuned))):
        raise UserError(f"Fine-tuning diverged at a learning rate of {rates[best]:g}; give lower --learning-rates.")
    return _accuracy(subject, tuned, subject.test, None), {"learning rate": rates[best]}


def hold_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Places of about this share of the labels, fewer where a class would not keep one; none if each has just one."""
    order = np.random.default_rng(seed).permutation(len(labels))
    _, firsts = np.unique(labels[order], return_index=True)
    free = np.delete(order, firsts)
    return np.sort(free[: max(1, round(share * len(labels)))])


def _train(
    subject: Subject, rows: np.ndarray, *, rate: float, settings: FineTuning, batch: int, seed: int
) -> Tree:
    """Parameters of encoder and head, and batch statistics, after the epochs."""
    width = jax.eval_shape(
        lambda: subject.encoder.apply(subject.variables, subject.plain(_first(subject)), False)
    ).shape[1]
    head = LinearFit(jnp.zeros((width, len(subject.classes))), jnp.zeros(len(subject.classes)))
    params = {"encoder": subject.variables["params"], "head": head}
    state = (params, subject.variables["batch_stats"], _momentum.init(params))
    steps = max(settings.least_steps, settings.epochs * len(rows) // batch)
    key = jax.random.key(seed)
    for step, (images, labels) in enumerate(_endless(subject, rows, batch, steps, seed)):
        now = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        state = _step(
            state, images, labels, jax.random.fold_in(key, step), now, encoder=subject.encoder, augmented=subject.augmented
        )
    return state[:2]


def _endless(
    subject: Subject, rows: np.ndarray, batch: int, steps: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of one size, of one permutation of the rows after the other."""
    generator = np.random.default_rng(seed)
    passes = -(-steps * batch // len(rows))
    order = np.concatenate([generator.permutation(rows) for _ in range(passes)])[: steps * batch]
    for images, labels in image_batches(subject.train, size=subject.size, batch=batch, rows=order):
        whole = np.arange(batch) % len(images)  # damaged ones are missing
        yield images[whole], labels[whole]


def _first(subject: Subject) -> np.ndarray:
    return next(image_batches(subject.train, size=subject.size, batch=1))[0]


@functools.partial(jax.jit, static_argnames=("encoder", "augmented"))
def _step(
    state: Tree,
    images: Array,
    labels: Array,
    key: Array,
    rate: Array,
    *,
    encoder: nn.Module,
    augmented: Callable[[Array, Array], Array],
) -> Tree:
    params, stats, trace = state
    pixels = augmented(jax.random.split(key, len(images)), images)

    def loss(params: Tree) -> tuple[Array, Tree]:
        variables = {"params": params["encoder"], "batch_stats": stats}
        representations, updates = encoder.apply(variables, pixels, True, mutable=["batch_stats"])
        logits = linear_logits(params["head"], representations)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), updates.get("batch_stats", stats)

    gradient, stats = jax.grad(loss, has_aux=True)(params)
    updates, trace = _momentum.update(gradient, trace)
    return jax.tree.map(lambda p, u: p - (rate * u).astype(p.dtype), params, updates), stats, trace


def _accuracy(
    subject: Subject, tuned: Tree, split: Split | Stream, rows: np.ndarray | None
) -> float:
    params, stats = tuned
    right = []
    for images, labels in image_batches(split, size=subject.size, batch=_JUDGED, rows=rows):
        full = images[np.arange(_JUDGED) % len(images)]  # the last are fewer
        predicted = _classify(params, stats, full, encoder=subject.encoder, plain=subject.plain)
        right.append(np.asarray(predicted)[: len(images)] == labels)
    return float(np.mean(np.concatenate(right)))


@functools.partial(jax.jit, static_argnames=("encoder", "plain"))
def _classify(
    params: Tree, stats: Tree, images: Array, *, encoder: nn.Module, plain: Callable[[Array], Array]
) -> Array:
    variables = {"params": params["encoder"], "batch_stats": stats}
    logits = linear_logits(params["head"], encoder.apply(variables, plain(images), False))
    # A classifier that is not finite is never right.
    return jnp.where(jnp.isfinite(logits).all(axis=1), jnp.argmax(logits, axis=1), -1)
