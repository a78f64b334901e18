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
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.data import Records, Split, Stream
from jaxclr.errors import UserError
from jaxclr.evaluation.feature_checks import check_known
from jaxclr.evaluation.features import host_rows
from jaxclr.evaluation.linear import LinearFit, linear_logits
from jaxclr.evaluation.protocols.protocol import Protocol, Result
from jaxclr.evaluation.subject import Subject, labeled_splits, map_rows
from jaxclr.processes import runtime
from jaxclr.steps.batches import canonical
from jaxclr.steps.examples import batches, labels_of, map_split, put_rows, spread
from jaxclr.steps.recipe import AXIS

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
    head = LinearFit(np.zeros((width, len(subject.classes))), np.zeros(len(subject.classes)))
    head = runtime.replicate(canonical(head), subject.mesh)
    params = {"encoder": subject.variables["params"], "head": head}
    everywhere = NamedSharding(subject.mesh, P())
    trace = jax.jit(_momentum.init, out_shardings=everywhere)(params)
    state = (params, subject.variables["batch_stats"], trace)
    # Virtual CPU devices share a pool of threads: two concurrent collectives can deadlock.
    one_at_a_time = subject.mesh.devices.flat[0].platform == "cpu" and subject.mesh.size > 1
    steps = max(settings.least_steps, settings.epochs * len(rows) // batch)
    functions = {"encoder": subject.encoder, "augmented": subject.augmented, "mesh": subject.mesh}
    for step, (images, labels) in enumerate(_endless(subject, rows, batch, steps, seed)):
        now = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        before = state
        state = _step(state, images, labels, np.int32(seed), np.int32(step), now, **functions)
        jax.block_until_ready(state if one_at_a_time else before)
    return state[:2]


def _endless(
    subject: Subject, rows: np.ndarray, batch: int, steps: int, seed: int
) -> Iterator[tuple[Tree, Array]]:
    """Examples and labels: batches of one size, of one permutation of the rows after the other.

    The label of a damaged image is -1.
    """
    generator = np.random.default_rng(seed)
    passes = -(-steps * batch // len(rows))
    order = np.concatenate([generator.permutation(rows) for _ in range(passes)])[: steps * batch]
    places = order.reshape(steps, batch)
    for some in spread(subject.train, places, subject.mesh, size=subject.size):
        yield some.data, put_rows(some.labels, batch, subject.mesh)


@functools.partial(jax.jit, static_argnames=("encoder", "augmented", "mesh"))
def _step(
    state: Tree,
    images: Tree,
    labels: Array,
    seed: Array,
    step: Array,
    rate: Array,
    *,
    encoder: nn.Module,
    augmented: Callable[[Array, Array], Array],
    mesh: Mesh,
) -> Tree:
    """A step on all devices, each of which has a part of the rows, or all if they do not divide."""
    shared = len(labels) % mesh.size == 0
    key = jax.random.fold_in(jax.random.key(seed), step)
    step_of = functools.partial(_device_step, encoder=encoder, augmented=augmented, shared=shared)
    rows = P(mesh.axis_names) if shared else P()
    specs = {"in_specs": (P(), rows, rows, rows, P(), P()), "out_specs": P(), "check_vma": False}
    mapped = jax.shard_map(step_of, mesh=mesh, **specs)
    return mapped(state, images, labels, jax.random.split(key, len(labels)), key, rate)


def _device_step(
    state: Tree,
    images: Tree,
    labels: Array,
    keys: Array,
    key: Array,
    rate: Array,
    *,
    encoder: nn.Module,
    augmented: Callable[[Array, Array], Array],
    shared: bool,
) -> Tree:
    params, stats, trace = state
    pixels = augmented(keys, images)
    key = jax.random.fold_in(key, jax.lax.axis_index(AXIS)) if shared else key
    counted = (labels >= 0).astype(jnp.float32)

    def loss(params: Tree) -> tuple[Array, Tree]:
        variables = {"params": params["encoder"], "batch_stats": stats}
        representations, updates = encoder.apply(
            variables, pixels, True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        logits = linear_logits(params["head"], representations)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
        share = jnp.sum(counted * losses) / jax.lax.pmean(jnp.sum(counted), AXIS)
        return share, updates.get("batch_stats", stats)

    # Collectives in the loss carry gradients between devices, so the mean over devices is exact.
    gradient, stats = jax.grad(loss, has_aux=True)(params)
    updates, trace = _momentum.update(jax.lax.pmean(gradient, AXIS), trace)
    return jax.tree.map(lambda p, u: p - (rate * u).astype(p.dtype), params, updates), stats, trace


def _accuracy(
    subject: Subject,
    tuned: Tree,
    *,
    split: Split | Stream | Records,
    rows: np.ndarray | None = None,
) -> float:
    functions = {"encoder": subject.encoder, "plain": subject.plain, "mesh": subject.mesh}
    classify = functools.partial(_classify, *tuned, **functions)
    found, labels = map_split(classify, split, subject.mesh, size=subject.size, rows=rows)
    return float(np.mean((host_rows(found) == labels)[labels >= 0]))


@functools.partial(jax.jit, static_argnames=("encoder", "plain", "mesh"))
def _classify(
    params: Tree,
    stats: Tree,
    images: Tree,
    *,
    encoder: nn.Module,
    plain: Callable[[Array], Array],
    mesh: Mesh,
) -> Array:
    def of_device(variables: Tree, images: Tree) -> Array:
        params, stats = variables
        network = {"params": params["encoder"], "batch_stats": stats}
        representations = jnp.asarray(encoder.apply(network, plain(images), False))
        logits = linear_logits(params["head"], representations)
        # A classifier that is not finite is never right.
        return jnp.where(jnp.isfinite(logits).all(axis=1), jnp.argmax(logits, axis=1), -1)

    return map_rows(of_device, mesh)((params, stats), images)
