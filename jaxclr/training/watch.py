"""What becomes of the embeddings in training: measured on the devices now and then, written when the host looks."""

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
ROWS = 512  # of a batch, most that the histograms compare
DIGITS = 5  # that are written of a number


class Log(Protocol):
    """Where lines of metrics and words for the user go."""

    def write(self, step: int, values: dict[str, Any]) -> None: ...

    def say(self, text: str) -> None: ...


class Watch:
    """Measures the embeddings every `observe_every` steps, and writes them when told to: the host waits for none."""

    def __init__(self, session: Session):
        config = session.config
        # One row has no negatives.
        self._every = config.observe_every if config.batch_size > 1 else 0
        self._steps = session.steps
        # Virtual CPU devices wait for each other for ever with two collectives in flight.
        self._one_at_a_time = (
            session.mesh.devices.flat[0].platform == "cpu" and session.mesh.size > 1
        )
        self._observe = compile_watch(session)
        self._compiled = False
        self._pending: list[tuple[int, dict[str, Array]]] = []
        self._collapsed = False

    def after_step(self, state: State, batch: Batch, done: int) -> None:
        """Starts the measurement that is due after so many steps, if one is, and compiles it the first time anyway."""
        due = self._every and (done == 1 or done % self._every == 0 or done == self._steps)
        if due or (self._every and not self._compiled):
            found = self._observe(state, batch)
            if self._one_at_a_time or not self._compiled:
                jax.block_until_ready(found)
            self._compiled = True
            if due:
                self._pending.append((done, found))

    def write(self, log: Log) -> None:
        """Writes what was measured since the last time, and warns once when a run begins to collapse."""
        pending, self._pending = self._pending, []
        for step, found in pending:
            values = jax.tree.map(lambda value: _rounded(value.tolist()), jax.device_get(found))
            log.write(step, values)
            # Untrained encoders often look collapsed: a tenth of the run is theirs to spread.
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
    """What `measure` says of a batch, its views taken anew, as a function of a state, which is kept, and the batch."""
    recipe = session.recipe
    target = recipe.method.target

    def mine(state: State, batch: Batch) -> dict[str, Array]:
        found = measure(observe(state, batch, recipe=recipe, axis_name=AXIS), AXIS)
        if isinstance(target, MomentumEncoder):
            found["momentum"] = momentum_ramp(
                target.momentum, ramp=target.ramp, step=state.step, steps=recipe.steps
            )
        return found

    specs = {"in_specs": (P(), P(AXIS)), "out_specs": P(), "check_vma": False}
    return jax.jit(jax.shard_map(mine, mesh=session.mesh, **specs))


def measure(out: Outputs, axis_name: Any) -> dict[str, Array]:
    r"""Figures of the global batch, the same on every device.

    Of the embeddings z of the first view: `rank_me` (uncentered, as they are), `effective_rank` and `spectrum` (centered
    covariance of unit rows), `total_variance`, `feature_std`, `collapse_auc`, `uniformity`; with those of the second view,
    `alignment`. Of the affinity matrix A of unit predictions and targets, which the objective compares: histograms of its
    diagonal and of the rest over [-1, 1] as shares, of at most ROWS rows, and :math:`\|A - A^\top\|_F / \|A\|_F`.

    Args:
      out: what the objective sees of this device's rows.
      axis_name: mapped axis over which the batch is spread; None if the rows are all of it.

    Returns:
      Scalars; `spectrum` [min(B, D)]; `positive_cosines` and `negative_cosines` [BINS].
    """
    whole = lambda z: gather_rows(z.astype(jnp.float32), axis_name)
    second = lambda some, other: some[1] if len(some) > 1 else other[0]
    z1 = whole(out.embeddings[0])
    z2 = whole(second(out.embeddings, out.targets))
    rows = unit_rows(whole(out.predictions[0]))
    columns = unit_rows(whole(second(out.targets, out.targets)))
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
    """Shares of the weight by cosine."""
    counts, _ = jnp.histogram(jnp.clip(cosines, -1, 1), BINS, range=(-1, 1), weights=weights)
    return counts / jnp.sum(weights)


def _rounded(value: Any) -> Any:
    return [_rounded(v) for v in value] if isinstance(value, list) else float(f"{value:.{DIGITS}g}")
