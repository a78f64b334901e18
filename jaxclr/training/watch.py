"""Measurements of the embeddings in training."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxclr.affinity import asymmetry, gather_rows, unit_rows
from jaxclr.affinity.tiles import matmul
from jaxclr.evaluation import alignment, collapse_auc, feature_std, rank_me, spectrum, uniformity
from jaxclr.evaluation.collapse import collapse_warning
from jaxclr.evaluation.metrics import exp_entropy
from jaxclr.methods import MomentumEncoder, Outputs
from jaxclr.steps.batches import Batch
from jaxclr.steps.optimizers import momentum_ramp
from jaxclr.steps.recipe import AXIS
from jaxclr.steps.state import State
from jaxclr.steps.step import observe
from jaxclr.training.session import Session

Array = jax.Array

BINS = 40  # of the histograms of cosines, from -1 to 1
ROWS = 512  # most rows of a batch in the histograms
DIGITS = 5  # significant digits of written numbers


class Log(Protocol):
    """A writer of metrics and of notes for the user."""

    def write(self, step: int, values: dict[str, Any]) -> None: ...

    def say(self, text: str) -> None: ...


class Watch:
    """Measures the embeddings every `observe_every` steps.

    Measurements are dispatched asynchronously; `write` fetches and writes them.
    """

    def __init__(self, session: Session):
        config = session.config
        # One row has no negatives.
        self._every = config.observe_every if config.batch_size > 1 else 0
        self._steps = session.steps
        # Virtual CPU devices share a pool of threads: two concurrent collectives can deadlock.
        self._one_at_a_time = (
            session.mesh.devices.flat[0].platform == "cpu" and session.mesh.size > 1
        )
        self._observe = compile_watch(session)
        self._compiled = False
        self._pending: list[tuple[int, dict[str, Array]]] = []
        self._collapsed = False

    def after_step(self, state: State, batch: Batch, done: int) -> None:
        """Starts a measurement if one is due; the first call compiles it in any case."""
        due = self._every and (done == 1 or done % self._every == 0 or done == self._steps)
        if due or (self._every and not self._compiled):
            found = self._observe(state, batch)
            if self._one_at_a_time or not self._compiled:
                jax.block_until_ready(found)
            self._compiled = True
            if due:
                self._pending.append((done, found))

    def write(self, log: Log) -> None:
        """Writes the measurements since the last call; warns once when a run begins to collapse."""
        pending, self._pending = self._pending, []
        for step, found in pending:
            values = jax.tree.map(lambda value: _rounded(value.tolist()), jax.device_get(found))
            log.write(step, values)
            # Untrained encoders often look collapsed: no warning in the first tenth of a run.
            warning = 10 * step >= self._steps and collapse_warning(
                effective_rank=values["effective_rank"],
                total_variance=values["total_variance"],
                width=len(values["spectrum"]),
            )
            if warning and not self._collapsed:
                log.write(step, {"warning": warning})
                log.say(f"WARNING, step {step}: {warning}")
            self._collapsed = bool(warning)


def compile_watch(session: Session) -> Callable[[State, Batch], dict[str, Array]]:
    """Compiles `measure` as a function of a state, which is not donated, and a batch."""
    recipe = session.recipe
    target = recipe.method.target

    def measured(state: State, batch: Batch) -> dict[str, Array]:
        found = measure(observe(state, batch, recipe=recipe, axis_name=AXIS), AXIS)
        if isinstance(target, MomentumEncoder):
            found["momentum"] = momentum_ramp(
                target.momentum,
                ramp=target.ramp,
                step=state.step,
                steps=recipe.steps_at(state.step),
            )
        return found

    specs = {"in_specs": (P(), P(AXIS)), "out_specs": P(), "check_vma": False}
    return jax.jit(jax.shard_map(measured, mesh=session.mesh, **specs))


def measure(out: Outputs, axis_name: Any) -> dict[str, Array]:
    r"""Measures the global batch; the results are equal on every device.

    - Of the embeddings of the first view: `rank_me` (neither centered nor normalized);
      `effective_rank`, `spectrum` and `total_variance` (covariance of unit rows); `feature_std`,
      `collapse_auc` and `uniformity`.
    - Of the embeddings of both views: `alignment`.
    - Of the affinity matrix A of unit predictions and targets: `asymmetry`,
      :math:`\|A - A^\top\|_F / \|A\|_F`, and of its first ROWS rows and columns the histograms
      over [-1, 1] of its diagonal, `positive_cosines`, and of the rest, `negative_cosines`.

    Args:
      out: the inputs of the objective, this device's rows.
      axis_name: mapped axis over which the batch is spread; None if this is the complete batch.

    Returns:
      Scalars; `spectrum` [min(B, D)]; `positive_cosines` and `negative_cosines` [BINS].
    """
    gathered = lambda z: gather_rows(z.astype(jnp.float32), axis_name)
    second = lambda some, other: some[1] if len(some) > 1 else other[0]
    z1 = gathered(out.embeddings[0])
    z2 = gathered(second(out.embeddings, out.targets))
    rows = unit_rows(gathered(out.predictions[0]))
    columns = unit_rows(gathered(second(out.targets, out.targets)))
    eigenvalues = spectrum(z1)
    size = jnp.sqrt(jnp.sum(matmul(rows.T, rows) * matmul(columns.T, columns)))
    affinity = matmul(rows[:ROWS], columns[:ROWS].T)
    diagonal = jnp.eye(len(affinity))
    return {
        "rank_me": rank_me(z1),
        "effective_rank": exp_entropy(eigenvalues),
        "total_variance": jnp.sum(eigenvalues),
        "feature_std": feature_std(z1),
        "collapse_auc": collapse_auc(z1),
        "alignment": alignment(z1, z2),
        "uniformity": uniformity(z1),
        "asymmetry": asymmetry(rows, columns) / jnp.maximum(size, 1e-12),
        "spectrum": eigenvalues,
        "positive_cosines": _histogram(affinity, diagonal),
        "negative_cosines": _histogram(affinity, 1 - diagonal),
    }


def _histogram(cosines: Array, weights: Array) -> Array:
    """The weight of each bin of cosines, as a share of the total."""
    counts, _ = jnp.histogram(jnp.clip(cosines, -1, 1), BINS, range=(-1, 1), weights=weights)
    return counts / jnp.sum(weights)


def _rounded(value: Any) -> Any:
    return [_rounded(v) for v in value] if isinstance(value, list) else float(f"{value:.{DIGITS}g}")
