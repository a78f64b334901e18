"""Programs of many steps and of many images against the training loop and evaluation."""

import jax
import numpy as np
import pytest
from distributed import mesh
from tiny import distance, tiny_config

from jaxclr import training
from jaxclr.data import Split
from jaxclr.evaluation.closing import monitor
from jaxclr.evaluation.resident import compile_knn
from jaxclr.steps.batches import batch_rows, resident, resident_batches
from jaxclr.training.loop import compile_step

STEPS = 3
CONFIG = tiny_config("sim_affinity", batch_size=128)


@pytest.fixture(scope="module")
def session():
    return training.open_session(CONFIG)._replace(mesh=mesh(2))


@pytest.fixture(scope="module")
def whole(session):
    return resident(session.dataset.train, session.mesh)


def test_an_epoch_visits_what_the_loop_does(session):
    places = training.epoch_indices(session.recipe, session.mesh, epoch=1)
    assert places.shape == (session.steps_per_epoch, CONFIG.batch_size)
    for index in range(session.steps_per_epoch):
        step = session.steps_per_epoch + index
        rows = batch_rows(1437, batch_size=CONFIG.batch_size, seed=CONFIG.seed, step=step)
        np.testing.assert_array_equal(places[index], rows)


def test_scanned_steps_are_those_of_the_loop(session, whole):
    step, looped = compile_step(session), session.init_state()
    batches = resident_batches(whole, batch_size=128, seed=CONFIG.seed, mesh=session.mesh)
    losses = []
    for _ in range(STEPS):
        looped, metrics = jax.block_until_ready(step(looped, next(batches)))
        losses.append(metrics["loss"].item())
    first = session.init_state()
    start = jax.device_get(first.params)
    places = training.epoch_indices(session.recipe, session.mesh, epoch=0)[:STEPS]
    scanned, metrics = training.compile_steps(session.recipe, session.mesh)(first, whole, places)
    assert first.step.is_deleted()  # consumed
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-5)
    assert int(scanned.step) == STEPS and metrics["bad_step"].tolist() == [-1] * STEPS
    # Programs round differently, and norms amplify it; another batch or key would be off by as much
    # as the parameters moved.
    moved = distance(jax.device_get(looped.params), start)
    for part in ("params", "target_params", "batch_stats"):
        one, other = (jax.device_get(getattr(state, part)) for state in (scanned, looped))
        assert distance(one, other) < 1e-3 * moved


def test_knn_in_one_program_is_that_of_evaluation(session, whole):
    dataset = session.dataset
    few = session._replace(
        dataset=dataset._replace(test=Split(dataset.test.examples[:101], dataset.test.labels[:101]))
    )
    state = session.init_state()
    test = jax.device_put(few.dataset.test.examples, state.step.sharding)
    found = compile_knn(few.recipe, few.mesh, few.dataset, k=200, temperature=0.1, rows=100)(
        state, whole.examples, test
    )
    assert found == pytest.approx(monitor(few.subject(state))["knn_200"], abs=1e-6)
