"""Twenty steps in float64, batches of a stream and its evaluation, on one or several processes.

python tests/twenty_steps.py OUT.npz FOLDER METHODS COORDINATOR PROCESSES PROCESS
"""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from evaluated import evaluated
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tiny import cast, tiny_config

import jaxclr
from jaxclr.augment import Augmentation, PhotoView
from jaxclr.data import Data
from jaxclr.processes import runtime
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.folder import RunFolder
from jaxclr.training.feed import open_feed
from jaxclr.training.loop import compile_step
from jaxclr.training.session import open_session

VIEW = PhotoView(size=8, crop_scale=(0.5, 1.0))


@functools.cache
def steps(method, devices=None, sharding="replicated"):
    """Parameters after twenty steps on so many devices, by path, and the indices of the rows."""
    session = on(open_session(tiny_config(method, state_sharding=sharding)), devices)
    state = session.init_state()
    with jax.enable_x64(True):
        state = jax.jit(lambda state: cast(state, jnp.float64))(state)
        step, feed, rows = compile_step(session), open_feed(session, start=80, report=print), []
        for _ in range(20):  # across the end of an epoch of 89
            batch = next(feed.batches)
            rows.append(whole(batch.indices, session))
            state, _ = jax.block_until_ready(step(state, batch))
        feed.close()
        leaves = jax.tree.leaves_with_path(whole((state.params, state.batch_stats), session))
    found = {f"{method}{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}
    return {**found, f"{method} rows": np.stack(rows)}


def streamed(folder, devices=None):
    """Three batches of a stream, as arrays by name."""
    data = Data(f"folder:{folder}", streaming="always", workers=0, test_fraction=0.0)
    config = tiny_config(data=data, augmentation=Augmentation((VIEW, VIEW)))
    session = on(open_session(config), devices)
    feed = open_feed(session, start=1, report=print)
    taken = [whole(next(feed.batches), session) for _ in range(3)]
    feed.close()
    leaves = jax.tree.leaves_with_path(taken)
    return {f"streamed{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}


def judged(folder, run, devices=None):
    """An evaluation of streamed images in two classes, and their embeddings in a file."""
    data = Data(f"folder:{folder}", streaming="always", workers=0, skip_corrupt=True)
    config = tiny_config(data=data, augmentation=Augmentation((VIEW, VIEW)))
    session = on(open_session(config), devices)
    state = session.init_state()
    run = RunFolder(pathlib.Path(run))
    runtime.run_on_first(lambda: run.create(session.config, overwrite=False))
    with Checkpoints(run.checkpoints) as checkpoints:
        checkpoints.save(state, 3)
    out = run.folder / "out.npz"
    found = evaluated(session.subject(state))
    jaxclr.Run(run.folder).embed(out)
    with np.load(out) as file:
        found |= {f"embedded {name}": file[name] for name in file}
    record = jaxclr.Run(run.folder).evaluate("knn", k=3)
    return {**found, "knn": np.array(record["figures"]["accuracy"]["values"])}


def on(session, devices):
    if devices is None:
        return session
    mesh = Mesh(
        session.mesh.devices[:devices], session.mesh.axis_names, axis_types=session.mesh.axis_types
    )
    return session._replace(mesh=mesh)


def whole(tree, session):
    """Arrays that are spread over devices, on the host."""
    everywhere = NamedSharding(session.mesh, P())
    return jax.device_get(jax.jit(lambda tree: tree, out_shardings=everywhere)(tree))


if __name__ == "__main__":
    out, folder, methods, coordinator, count, index = sys.argv[1:]
    runtime.initialize(runtime.Distributed(coordinator, int(count), int(index)))
    found = streamed(f"{folder}/all") | judged(f"{folder}/classes", f"{out}.run")
    for method in methods.split():
        found |= steps(method, sharding="all" if method == "sim_affinity" else "replicated")
    spread = open_session(tiny_config(state_sharding="all"))
    with Checkpoints(pathlib.Path(out).parent / "checkpoints") as checkpoints:
        checkpoints.save(spread.init_state(), 1)
    if runtime.is_first():
        np.savez(out, **found)
