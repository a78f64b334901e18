"""Fine-tuning of the encoder with a linear head, on all labels or on a share of them."""

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

from jaxclr.data import Records, Split, Stream
from jaxclr.errors import UserError
from jaxclr.evaluation.feature_checks import check_known
from jaxclr.evaluation.linear import LinearFit, linear_logits
from jaxclr.evaluation.protocols.protocol import Protocol, Result
from jaxclr.evaluation.subject import Subject, labeled_splits
from jaxclr.steps.examples import apply_in_batches, batches, fill, labels_of
from jaxclr.steps.recipe import with_whole_batch

Array = jax.Array
Tree = Any

_momentum = optax.trace(decay=0.9, nesterov=True)


@dataclasses.dataclass(frozen=True)
class FineTuning(Protocol):
    """Encoder and a linear head trained on labels: SGD, Nesterov momentum 0.9, cosine schedule."""

    learning_rates: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (0.1, 0.03, 0.3)
    """Peak learning rates, independent of the batch size. The one with the best accuracy on
    held-out labeled images, of equals the first, is selected for training on all of them; the first
    one where no class has a label to hold out."""

    epochs: Annotated[int, Ge(1)] = 60
    """Passes over the labeled images."""

    least_steps: Annotated[int, Ge(1)] = 300
    """Minimum number of steps of a training."""

    batch_size: Annotated[int, Ge(1)] = 64
    """Images in a step; all of them if there are fewer."""

    held_out: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    """Share of the labeled images on which a learning rate is chosen."""


@dataclasses.dataclass(frozen=True)
class FineTune(FineTuning):
    """The encoder fine-tuned on all labels, with a linear head."""

    epochs: Annotated[int, Ge(1)] = 30
    """Passes over the training images."""

    def run(self, subject: Subject, seed: int) -> Result:
        rows, labels = labeled_rows(subject)
        accuracy, chosen = tune(subject, rows, labels, self, seed=seed)
        return Result({"accuracy": (accuracy,)}, {"accuracy": chosen})


@dataclasses.dataclass(frozen=True)
class Semi(FineTuning):
    """The encoder fine-tuned on a share of the labels, with a linear head (arXiv:2002.05709)."""

    shares: Annotated[tuple[Annotated[float, Interval(gt=0, le=1)], ...], MinLen(1)] = (0.01, 0.1)
    """Shares of the labels, drawn from each class, at least one label of each."""

    def run(self, subject: Subject, seed: int) -> Result:
        rows, labels = labeled_rows(subject)
        figures, chosen = {}, {}
        for share in self.shares:
            drawn = draw_share(labels, share, seed)
            name = f"{100 * share:g}% of labels"
            accuracy, chosen[name] = tune(subject, rows[drawn], labels[drawn], self, seed=seed)
            figures[name] = (accuracy,)
        return Result(figures, chosen)


def draw_share(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Indices of a share of the labels of each class, rounded, at least one, in order."""
    generator = np.random.default_rng(seed)
    members = (np.flatnonzero(labels == label) for label in np.unique(labels))
    drawn = [generator.permutation(rows)[: max(1, round(share * len(rows)))] for rows in members]
    return np.sort(np.concatenate(drawn))


def labeled_rows(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the labeled training images, [n], and their labels; those of test are among them.

    Raises:
      UserError: there is a label in test that train lacks.
    """
    train, test = map(labels_of, labeled_splits(subject.dataset))
    rows = np.flatnonzero(train >= 0)
    check_known(train[rows], test[test >= 0], subject.classes)
    return rows, train[rows]


def tune(
    subject: Subject, rows: np.ndarray, labels: np.ndarray, settings: FineTuning, *, seed: int
) -> tuple[float, dict[str, Any]]:
    """Test accuracy after fine-tuning on some training images, and the learning rate chosen.

    Args:
      subject: encoder and images.
      rows: indices of the labeled images in the training split, [n].
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
        accuracy = functools.partial(_accuracy, subject, split=subject.train, rows=rows[chosen_on])
        best = int(np.argmax([accuracy(train(rows[kept], rate=rate)) for rate in rates]))
    tuned = train(rows, rate=rates[best])
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(tuned))):
        raise UserError(
            f"Fine-tuning diverged at a learning rate of {rates[best]:g}; "
            "give lower --learning-rates."
        )
    _, test = labeled_splits(subject.dataset)
    return _accuracy(subject, tuned, split=test), {"learning rate": rates[best]}


def hold_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Indices of about this share of the labels; fewer where a class would lose its last one."""
    order = np.random.default_rng(seed).permutation(len(labels))
    _, firsts = np.unique(labels[order], return_index=True)
    free = np.delete(order, firsts)
    return np.sort(free[: max(1, round(share * len(labels)))])


def _train(
    subject: Subject, rows: np.ndarray, *, rate: float, settings: FineTuning, batch: int, seed: int
) -> Tree:
    """Parameters of encoder and head, and batch statistics, after the epochs."""
    first = next(batches(subject.train, size=subject.size, batch=1)).data
    represent = lambda variables: subject.encoder.apply(variables, subject.plain(first), False)
    width = jax.eval_shape(represent, subject.variables).shape[1]
    head = LinearFit(jnp.zeros((width, len(subject.classes))), jnp.zeros(len(subject.classes)))
    params = {"encoder": subject.variables["params"], "head": head}
    state = (params, subject.variables["batch_stats"], _momentum.init(params))
    steps = max(settings.least_steps, settings.epochs * len(rows) // batch)
    key = jax.random.key(seed)
    for step, (images, labels) in enumerate(_endless(subject, rows, batch, steps, seed)):
        now = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        keys = jax.random.fold_in(key, step)
        functions = {"encoder": subject.encoder, "augmented": subject.augmented}
        state = _step(state, images, labels, keys, now, **functions)
    return state[:2]


def _endless(
    subject: Subject, rows: np.ndarray, batch: int, steps: int, seed: int
) -> Iterator[tuple[Tree, np.ndarray]]:
    """Examples and labels: batches of one size, of one permutation of the rows after the other."""
    generator = np.random.default_rng(seed)
    passes = -(-steps * batch // len(rows))
    order = np.concatenate([generator.permutation(rows) for _ in range(passes)])[: steps * batch]
    for some in batches(subject.train, size=subject.size, batch=batch, rows=order):
        yield fill((some.data, some.labels), batch)  # damaged ones are missing


@functools.partial(jax.jit, static_argnames=("encoder", "augmented"))
def _step(
    state: Tree,
    images: Tree,
    labels: Array,
    key: Array,
    rate: Array,
    *,
    encoder: nn.Module,
    augmented: Callable[[Array, Array], Array],
) -> Tree:
    params, stats, trace = state
    pixels = augmented(jax.random.split(key, len(labels)), images)

    def loss(params: Tree) -> tuple[Array, Tree]:
        variables = {"params": params["encoder"], "batch_stats": stats}
        train = lambda variables, pixels, key: encoder.apply(
            variables, pixels, True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        # A module of a user's own may span the axis of the training step.
        representations, updates = with_whole_batch(train)(variables, pixels, key)
        logits = linear_logits(params["head"], representations)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), updates.get("batch_stats", stats)

    gradient, stats = jax.grad(loss, has_aux=True)(params)
    updates, trace = _momentum.update(gradient, trace)
    return jax.tree.map(lambda p, u: p - (rate * u).astype(p.dtype), params, updates), stats, trace


def _accuracy(
    subject: Subject,
    tuned: Tree,
    *,
    split: Split | Stream | Records,
    rows: np.ndarray | None = None,
) -> float:
    functions = {"encoder": subject.encoder, "plain": subject.plain}
    classify = functools.partial(_classify, *tuned, **functions)
    some = batches(split, size=subject.size, rows=rows)
    right = [
        (apply_in_batches(classify, examples.data) == examples.labels)[examples.labels >= 0]
        for examples in some
    ]
    return float(np.mean(np.concatenate(right)))


@functools.partial(jax.jit, static_argnames=("encoder", "plain"))
def _classify(
    params: Tree, stats: Tree, images: Tree, *, encoder: nn.Module, plain: Callable[[Array], Array]
) -> Array:
    variables = {"params": params["encoder"], "batch_stats": stats}
    representations = jnp.asarray(encoder.apply(variables, plain(images), False))
    logits = linear_logits(params["head"], representations)
    # A classifier that is not finite is never right.
    return jnp.where(jnp.isfinite(logits).all(axis=1), jnp.argmax(logits, axis=1), -1)
