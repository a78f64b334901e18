"""The training loop."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import rich.console

from jaxclr.errors import UserError
from jaxclr.evaluation.subject import Subject
from jaxclr.processes import runtime
from jaxclr.processes.signals import Stopped, StopSignals
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.digests import digests
from jaxclr.runs.folder import RunFolder
from jaxclr.runs.loggers import Send
from jaxclr.runs.logs import nowhere, open_logs
from jaxclr.steps.batches import Batch, batch_rows
from jaxclr.steps.recipe import AXIS
from jaxclr.steps.refresh import compile_refresh, refresh_is_due
from jaxclr.steps.state import State
from jaxclr.steps.step import map_step, step_on, train_step
from jaxclr.text import print_text
from jaxclr.training.clock import Alarm, Clock
from jaxclr.training.feed import open_feed
from jaxclr.training.profile import Trace
from jaxclr.training.session import Session
from jaxclr.training.snapshots import Snapshots
from jaxclr.training.watch import Watch

Evaluate = Callable[[Subject], Mapping[str, Any]]


def compile_step(session: Session) -> Callable[[State, Batch], tuple[State, dict[str, Any]]]:
    """The training step, mapped over the session's devices by the configured mapper."""
    if session.recipe.sharding != "replicated":
        return jax.jit(step_on(session.mesh, session.recipe), donate_argnums=0)
    step = functools.partial(train_step, recipe=session.recipe, axis_name=AXIS)
    return map_step(step, session.mesh, session.config.mapper)


def train(
    session: Session,
    run: RunFolder,
    *,
    console: rich.console.Console,
    evaluate: Evaluate | None = None,
    stop_after: int | None = None,
    profile: range = range(0),
    send: Send = nowhere,
) -> State:
    """Trains from the newest checkpoint of a run, or from the initial state, to the last step.

    The host waits for the devices only to log, evaluate or save. SIGTERM, SIGINT or SIGHUP stop it
    after the current step; several processes agree on it when they next log.

    Args:
      session: what to train.
      run: its folder, with its configuration.
      console: for progress.
      evaluate: called every `evaluate_every` epochs with the current network; its result is logged.
      stop_after: number of steps in all after which to stop, with a checkpoint.
      profile: steps to trace, counted from 0; empty for no trace.
      send: gives the metrics of a step to other destinations, on the first process.

    Returns:
      The last state.

    Raises:
      UserError: loss, gradient or update is not finite, every checkpoint is damaged, or the folder
        cannot be written. The last good state is kept.
      Stopped: a signal was received; the state is saved.
    """
    config, last = session.config, min(stop_after or session.steps, session.steps)
    # Virtual CPU devices share a pool of threads: two concurrent collectives can deadlock.
    one_at_a_time = session.mesh.devices.flat[0].platform == "cpu" and session.mesh.size > 1
    with StopSignals() as signals, Checkpoints(run.checkpoints, keep=config.keep) as checkpoints:
        report = functools.partial(print_text, console)
        if checkpoints.latest is not None:
            state = checkpoints.restore(session.state_shape(), say=report)
        else:
            state = session.init_state()
            digests(state)  # compiled now, so that the first save does not delay a step
        start = int(state.step)
        trace = Trace(run.profile, profile if runtime.is_first() else range(0), start=start)
        step_fn = compile_step(session)
        refresh = compile_refresh(session.recipe, session.mesh, session.plain_size)
        feed = open_feed(session, start=start, report=report)
        watch, snapshots = Watch(session), Snapshots(session, run)
        subject = session.subject(state)
        if start == 0 and snapshots.due(0):
            network = session.whole(state)
            runtime.run_on_first(lambda: snapshots.take(network, 0))
        clock, alarm = Clock(), Alarm(config.checkpoint_minutes)
        due = functools.partial(_due, steps_per_epoch=session.steps_per_epoch)
        logged = open_logs(run, start=start, steps=session.steps, console=console, send=send)
        with contextlib.closing(feed), logged as logs, trace:
            for done in range(start + 1, last + 1):
                trace.before_step(done - 1, state, clock)
                if refresh_is_due(session.recipe, done - 1):
                    jax.block_until_ready(state)
                    with clock.spent_on("refresh"):
                        state = jax.block_until_ready(refresh(state, feed.examples))
                first = done == start + 1  # compiles
                with clock.spent_on("start" if first else "input"):
                    batch = next(feed.batches)
                traced = jax.profiler.StepTraceAnnotation("train", step_num=done - 1)
                with clock.spent_on("start" if first else "step"), traced:
                    state, metrics = step_fn(state, batch)
                    if one_at_a_time or first:
                        jax.block_until_ready(state)
                with clock.spent_on("start" if first else "observation"):
                    watch.after_step(state, batch, done)
                clock.count(0 if first else config.batch_size)
                log = done % config.log_every == 0 or done == last
                stopped = runtime.agree_on_stop(signals.received, now=log)
                save = (
                    done == last
                    or stopped
                    or due(done, config.checkpoint_every)
                    or alarm.rings(now=log)
                )
                monitored = config.evaluate_every > 0 and due(done, config.evaluate_every)
                if log or save or monitored:
                    values = {name: value.item() for name, value in jax.device_get(metrics).items()}
                    bad_step = values.pop("bad_step")
                    if bad_step >= 0:
                        refuse = functools.partial(
                            _refuse_not_finite, session, run, checkpoints, state, bad_step
                        )
                        runtime.run_on_all(refuse)
                    watch.write(logs)
                if log:
                    values |= clock.lap()
                    with clock.spent_on("logging"):
                        rate = f"{values['images_per_second']:.0f} images/s"
                        logs.progress(done, f"loss {values['loss']:.4f}  {rate}")
                        logs.write(done, values)
                if snapshots.due(done):
                    jax.block_until_ready(state)
                    with clock.spent_on("snapshot"):
                        network = session.whole(state)
                        runtime.run_on_first(functools.partial(snapshots.take, network, done))
                if monitored and evaluate:
                    jax.block_until_ready(state)
                    with clock.spent_on("evaluation"):
                        record = evaluate(subject.at(session.whole(state)))
                    epochs, rest = divmod(done, session.steps_per_epoch)
                    epoch = round(done / session.steps_per_epoch, 4) if rest else epochs
                    logs.write(done, {"epoch": epoch, **record})
                    logs.say(f"epoch {epoch}  " + "  ".join(f"{k} {v}" for k, v in record.items()))
                if save:
                    # Last, so that a run resumed from this checkpoint repeats nothing of this step.
                    jax.block_until_ready(state)
                    with clock.spent_on("checkpoint"):
                        logs.publish()
                        blocked = checkpoints.save(state, done)
                    alarm.restart()
                    logs.write(done, {"save_seconds": round(blocked, 4)})
                if stopped:
                    checkpoints.wait()
                    raise _stopped(stopped, done, session, run)
    # A signal that came while the last checkpoint was written.
    if stopped := runtime.agree_on_stop(signals.received, now=True):
        raise _stopped(stopped, last, session, run)
    return state


def _stopped(name: str, step: int, session: Session, run: RunFolder) -> Stopped:
    return Stopped(
        f"{name}: stopped after step {step} of {session.steps}, which is saved. "
        f"The same command, or `jaxclr resume {run.folder}`, continues it."
    )


def _due(step: int, epochs: float, *, steps_per_epoch: int) -> bool:
    """Whether a step ends a period of so many epochs, rounded to steps."""
    return step % max(1, round(epochs * steps_per_epoch)) == 0


def _refuse_not_finite(
    session: Session, run: RunFolder, checkpoints: Checkpoints, state: State, bad_step: int
) -> None:
    """Saves the state before a bad step and the indices of the step's images, and raises."""
    if checkpoints.latest != bad_step:
        checkpoints.save(state.replace(bad_step=jnp.full_like(state.bad_step, -1)), bad_step)
    config = session.config
    rows = batch_rows(
        session.recipe.images, batch_size=config.batch_size, seed=config.seed, step=bad_step
    )
    record = {"step": bad_step, "seed": config.seed, "images": rows.tolist()}
    runtime.run_on_first(lambda: run.write_bad_step(record))
    raise UserError(
        f"The loss, its gradient or the update is not finite at step {bad_step}. The state before "
        f"it is kept in {run.checkpoints}, its seed and the indices of its images in "
        f"{run.bad_step}. "
        "Lower the learning rate, set --clip-norm, or raise the temperature or eps."
    )
