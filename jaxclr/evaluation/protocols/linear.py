"""A linear classifier on frozen features, by SGD; several learning rates at once."""

import dataclasses
import functools
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from annotated_types import Ge, Gt, Interval, MinLen

from jaxclr.errors import UserError
from jaxclr.evaluation.linear import LinearFit, linear_logits
from jaxclr.evaluation.protocols.base import Features, Protocol, Result, Subject, moments

Array = jax.Array

_TILE = 1024  # rows judged at a time
_momentum = optax.trace(decay=0.9)


@dataclasses.dataclass(frozen=True)
class Linear(Protocol):
    """Softmax regression on frozen, standardised representations, by SGD with a cosine schedule (arXiv:2104.02057)."""

    learning_rates: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (
        0.01, 0.03, 0.1, 0.3, 1.0, 3.0
    )
    """Peaks, for a batch of 256, that are trained at once; the one of the lowest cross-entropy on held-out training
    images is trained on all."""

    l2: Annotated[float, Ge(0)] = 1.0
    """Ridge on the weights: half of it times their squares is added to the sum of all training images' losses, as
    1 / C in scikit-learn."""

    epochs: Annotated[int, Ge(1)] = 100
    """Passes over the training images."""

    batch_size: Annotated[int, Ge(1)] = 256
    """Images in a step; all of them if there are fewer."""

    held_out: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    """Share of the training images on which a learning rate is chosen."""

    def run(self, subject: Subject, seed: int) -> Result:
        train, test = subject.features
        accuracy, chosen = probe(train, test, self, classes=len(subject.classes), seed=seed)
        return Result({"accuracy": (accuracy,)}, {"accuracy": chosen})


@dataclasses.dataclass(frozen=True)
class Transfer(Linear):
    """The linear protocol on another data set, which --data.source names."""

    elsewhere: ClassVar[bool] = True


def probe(
    train: Features, test: Features, settings: Linear, *, classes: int, seed: int
) -> tuple[float, dict[str, Any]]:
    """Test accuracy of the classifier whose learning rate did best on held-out training rows.

    Args:
      train: N rows.
      test: M rows, seen once, by one classifier.
      settings: of the protocol.
      classes: number of classes.
      seed: of the validation split and the order of batches.

    Returns:
      Accuracy in [0, 1], and what was chosen.

    Raises:
      UserError: there are fewer than two training rows, or the classifier diverged.
    """
    count = len(train.labels)
    if count < 2:
        raise UserError(f"A linear classifier needs at least 2 training images, got {count}.")
    x, y = jnp.asarray(train.values), jnp.asarray(train.labels)
    split_key, choose_key, final_key = jax.random.split(jax.random.key(seed), 3)
    rows = jax.random.permutation(split_key, count)
    held_out = min(max(1, round(count * settings.held_out)), count - 1)
    rates = sorted(settings.learning_rates)
    mean, std = moments(train.values)
    options = dict(classes=classes, epochs=settings.epochs, batch=settings.batch_size)
    fit = functools.partial(_train, x, y, mean, std, settings.l2, **options)
    best = 0
    if len(rates) > 1:
        fits = fit(rows[held_out:], jnp.array(rates), choose_key)
        best = int(np.argmin(_judge(fits, x[rows[:held_out]], y[rows[:held_out]])[0]))
    final = fit(rows, jnp.array(rates[best : best + 1]), final_key)
    if not all(jnp.isfinite(leaf).all() for leaf in final):
        raise UserError(f"The classifier diverged at a learning rate of {rates[best]:g}; give lower --learning-rates.")
    _, accuracy = _judge(final, jnp.asarray(test.values), jnp.asarray(test.labels))
    return float(accuracy[0]), {"learning rate": rates[best]}


@functools.partial(jax.jit, static_argnames=("classes", "epochs", "batch"))
def _train(
    x: Array,
    y: Array,
    mean: Array,
    std: Array,
    l2: float,
    rows: Array,
    rates: Array,
    key: Array,
    *,
    classes: int,
    epochs: int,
    batch: int,
) -> LinearFit:
    """Classifiers of x itself, [R, D, C] and [R, C], trained on standardised rows by the same batches.

    Features are standardised a batch at a time, so that there is no second copy of them.
    """
    batch = min(batch, len(rows))
    steps = len(rows) // batch

    def loss(fit: LinearFit, batch_x: Array, batch_y: Array) -> Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(linear_logits(fit, batch_x), batch_y)
        return jnp.mean(losses) + 0.5 * l2 / len(rows) * jnp.sum(fit.weights**2)

    def one(fit, trace, batch_x, batch_y, progress, rate):
        gradient = jax.grad(loss)(fit, batch_x, batch_y)
        updates, trace = _momentum.update(gradient, trace)
        now = rate * batch / 256 * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return jax.tree.map(lambda p, u: p - now * u, fit, updates), trace

    def epoch(state, index):
        order = jax.random.permutation(jax.random.fold_in(key, index), rows)

        def step(place, state):
            some = jax.lax.dynamic_slice_in_dim(order, place * batch, batch)
            batch_x = (x[some].astype(jnp.float32) - mean[None]) / std[None]
            progress = (index * steps + place) / (epochs * steps)
            each = jax.vmap(one, (0, 0, None, None, None, 0))
            return each(*state, batch_x, y[some], progress, rates)

        return jax.lax.fori_loop(0, steps, step, state), None

    zeros = LinearFit(jnp.zeros((len(rates), x.shape[1], classes)), jnp.zeros((len(rates), classes)))
    start = (zeros, jax.vmap(_momentum.init)(zeros))
    (fit, _), _ = jax.lax.scan(epoch, start, jnp.arange(epochs))
    weights = fit.weights / std[None, :, None]
    return LinearFit(weights, fit.bias - jnp.einsum("d,rdc->rc", mean, weights, precision="highest"))


@jax.jit
def _judge(fits: LinearFit, x: Array, y: Array) -> tuple[Array, Array]:
    """Cross-entropy and accuracy of R classifiers, [R] each, on rows that are looked at a tile at a time."""

    def of_row(row: tuple[Array, Array]) -> tuple[Array, Array]:
        logits = jnp.einsum("d,rdc->rc", row[0].astype(jnp.float32), fits.weights, precision="highest") + fits.bias
        losses = jax.nn.logsumexp(logits, axis=1) - logits[:, row[1]]
        # A classifier that diverged is the worst.
        return jnp.where(jnp.isfinite(losses), losses, jnp.inf), jnp.argmax(logits, axis=1) == row[1]

    losses, right = jax.lax.map(of_row, (x, y), batch_size=min(len(x), _TILE))
    return jnp.mean(losses, axis=0), jnp.mean(right, axis=0)
