"""The parts of a training step as separate programs, and the operations of each."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P
from measure import on_devices
from rooflines import Program
from step import augmentation_call, batches, carried, loss_and_gradient, observation

from jaxclr import training
from jaxclr.augment import AUGMENTATIONS, with_size
from jaxclr.evaluation.resident import compile_knn, representations
from jaxclr.steps.batches import Batch, resident
from jaxclr.steps.recipe import AXIS
from jaxclr.steps.views import take_views
from jaxclr.training.loop import compile_step
from jaxclr.training.session import Session

Array = jax.Array


def step_parts(session: Session) -> dict[str, Program]:
    """The whole step, and views, encoder, loss and update alone, on one batch."""
    batch = next(batches(session))
    state = session.init_state()
    whole = compile_step(session)
    parts = {
        "whole step": Program(
            carried(whole, session.init_state(), batch), flops(whole, state, batch)
        )
    }
    views = augmentation_call(session, batch)
    parts["views"] = Program(views, _views_flops(session, batch))
    for name, backward in (
        ("encoder and heads, forward", False),
        ("encoder and heads, with gradient", True),
    ):
        encoder = _encoder(session, backward=backward)
        seen = views()[session.config.method.online_views]
        call = functools.partial(encoder, state.params, state.batch_stats, seen)
        parts[name] = Program(call, flops(encoder, state.params, state.batch_stats, seen))
    out = observation(session.recipe, session.mesh)(state, batch)
    loss = loss_and_gradient(session.recipe, session.mesh)
    parts["loss with gradient"] = Program(
        functools.partial(loss, out, state.method_state), flops(loss, out, state.method_state)
    )
    update = _update(session)
    arguments = state.params, state.opt_state, state.params
    parts["update"] = Program(functools.partial(update, *arguments), flops(update, *arguments))
    return parts


def scanned_steps(session: Session, count: int) -> Callable[[], Any]:
    """Several steps in one program, from the state after the last call."""
    places = training.epoch_indices(session.recipe, session.mesh, 0)
    places = places[jnp.arange(count) % len(places)]
    whole = resident(session.dataset.train, session.mesh)
    return carried(
        training.compile_steps(session.recipe, session.mesh), session.init_state(), whole, places
    )


def knn(session: Session, *, k: int, temperature: float) -> Callable[[], Any]:
    """One kNN evaluation: representations of both splits, and the vote."""
    state, whole = session.init_state(), resident(session.dataset.train, session.mesh)
    test = jax.device_put(session.dataset.test.examples, whole.examples.sharding)
    program = compile_knn(
        session.recipe, session.mesh, session.dataset, k=k, temperature=temperature
    )
    return functools.partial(program, state, whole.examples, test)


def embedding(session: Session) -> Callable[[], Any]:
    """What of a kNN evaluation is representations."""
    state, whole = session.init_state(), resident(session.dataset.train, session.mesh)
    test = jax.device_put(session.dataset.test.examples, whole.examples.sharding)
    represent = functools.partial(
        representations, recipe=session.recipe, mesh=session.mesh, rows=500
    )
    program = jax.jit(lambda *images: [represent(state, some) for some in images])
    return functools.partial(program, whole.examples, test)


def crops(images: int, source: int, size: int) -> Callable[[], Any]:
    """Two views by the asymmetric recipe: crop, jitter, grayscale, blur or solarize, flip."""
    recipe = with_size(AUGMENTATIONS["byol"], size)
    pixels = jax.random.bits(jax.random.key(0), (images, source, source, 3), jnp.uint8)
    keys = jax.random.split(jax.random.key(1), images)
    return functools.partial(jax.jit(recipe), keys, pixels)


def flops(program: Any, *arguments: Any) -> float:
    """Operations of a jitted program before optimization, as the compiler counts them.

    The body of a loop counts once.
    """
    return float(program.lower(*arguments).cost_analysis()["flops"])


def _views_flops(session: Session, batch: Batch) -> float:
    step = jnp.zeros((), jnp.int32)
    program = jax.jit(functools.partial(take_views, recipe=session.recipe))
    return flops(program, step, batch.examples, jnp.arange(session.recipe.batch_size))


def _encoder(session: Session, *, backward: bool) -> Any:
    """Encoder and heads on one view after the other, as in a step, under a trivial loss."""
    network = session.recipe.network

    def share(params: Any, stats: Any, views: tuple[Array, ...]) -> Array:
        total = jnp.zeros(())
        for view in views:
            variables = {"params": params, "batch_stats": stats}
            branch, updates = network.apply(variables, view, train=True, mutable=["batch_stats"])
            stats = updates.get("batch_stats", stats)
            total += jnp.mean(branch.prediction.astype(jnp.float32) ** 2)
        return total

    def one_device(*arguments: Any) -> Any:
        return jax.lax.pmean((jax.grad(share) if backward else share)(*arguments), AXIS)

    return on_devices(one_device, session.mesh, (P(), P(), P(AXIS)), P())


def _update(session: Session) -> Any:
    optimizer = session.recipe.optimizer

    @jax.jit
    def update(gradients: Any, opt_state: Any, params: Any) -> Any:
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return update
