"""Evaluation on several devices: on paper on a TPU pod, and embedding by processes of one core.

    python experiments/benchmarks/evaluation.py [--topology v5e:16x16] [--out FILE.json]
    python experiments/benchmarks/evaluation.py --processes [--images 4000]

The pod: representations of ImageNet's training and test images by the encoder of an experiment,
kNN, and passes of the linear probe, each compiled by the TPU's compiler (libtpu; no TPU is needed).
FLOPs and the bytes that a chip sends are those of the programs, with loops counted as often as they
run; matrix products in float32 count as six in bfloat16. Bytes of the HBM are counted by hand: what
has to be read and written if a tile stays in the chip's memory. Seconds are the largest of FLOPs
over the peak, bytes over the HBM's bandwidth, and sent bytes over that of the links; none is
measured. Reading and decoding images is not counted. The host's part of the probe, L-BFGS, is
measured on this machine, on a quadratic function of as many numbers.

--processes embeds images with `jaxclr embed` in one process and in two, of one core each, in turn,
and reports images per second after the first batch.
"""

import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.table
import scipy.optimize
import tyro
from jax.sharding import PartitionSpec as P
from lowered import compiled_need, tally
from measure import Output, machine, number, verdict
from programs import (
    IMAGENET_CLASSES,
    IMAGENET_IMAGES,
    laid_out,
    mesh_of,
    pod,
    prepare_compiler,
    recipe_of,
)
from scaling import CHIPS, compiled_traffic, sent

import jaxclr
from jaxclr.augment import AUGMENTATIONS, with_size
from jaxclr.data import Data
from jaxclr.encoders import SmallConv
from jaxclr.evaluation import knn, linear
from jaxclr.evaluation.subject import compile_represent
from jaxclr.methods import METHODS
from jaxclr.processes import launch, runtime
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.experiments import load_experiment
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.examples import BATCH
from jaxclr.steps.state import image_examples, init_state
from jaxclr.training.session import open_session

TEST_IMAGES = 50_000
HBM = {"v5e": 819e9, "v5p": 2765e9}  # bytes per second, in the words of the data sheet
PRODUCTS = 6  # in bfloat16, for one in float32 of the highest precision
FASTER_BAR = 1.7  # times the images/s of one process, by two
FOLDER = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Evaluation on several devices."""

    experiment: pathlib.Path = FOLDER.parent / "imagenet.py"
    """Experiment file, of whose encoder representations are."""

    topology: str = "v5e:16x16"
    """TPU generation and shape of the pod, in libtpu's words."""

    k: int = 200
    """Neighbors."""

    evaluations: int = 1000
    """Passes of the linear probe over the training images, for all values of l2."""

    processes: bool = False
    """Measure one and two processes of this machine instead."""

    images: int = 4000
    """With --processes: images of 32 pixels."""

    repeats: int = 3
    """With --processes: measurements of each."""


def main(options: Options) -> None:
    if options.processes:
        record = {"machine": machine(), **of_processes(options)}
        options.tell(record, [process_table(record)])
        return
    prepare_compiler()
    record = {"machine": machine(), "topology": options.topology, "parts": list(parts(options))}
    options.tell(record, [pod_table(record)])


def parts(options: Options) -> Iterator[dict[str, Any]]:
    """What each part of an evaluation takes of a chip."""
    mesh = mesh_of(pod(options.topology))
    config = load_experiment(options.experiment)
    recipe = recipe_of(config, global_batch=mesh.size, channels=3)
    size = config.augmentation.views[0].size
    state = jax.eval_shape(lambda: init_state(recipe, image_examples(size, size, 3)))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    images = jax.ShapeDtypeStruct((BATCH * mesh.size, size, size, 3), jnp.uint8)
    embed = compile_represent(recipe, mesh)
    width = jax.eval_shape(embed, variables, images).shape[1]
    batches = [-(-count // (BATCH * mesh.size)) for count in (IMAGENET_IMAGES, TEST_IMAGES)]
    rows = [count * BATCH for count in batches]  # of a chip
    features, tests = (
        jax.ShapeDtypeStruct((count * mesh.size, width), jnp.float32) for count in rows
    )
    labels, weights = (
        jax.ShapeDtypeStruct((features.shape[0],), kind) for kind in (jnp.int32, jnp.float32)
    )
    by_rows = lambda *arrays: laid_out(arrays, mesh, P(mesh.axis_names))

    program = embed.lower(laid_out(variables, mesh, P()), *by_rows(images))
    need, text = compiled_need(program)
    traffic = program.compile().cost_analysis()["bytes accessed"]
    calls = sum(batches)
    yield part(
        f"representations, {calls} batches of {BATCH} a chip",
        options.topology,
        mesh.size,
        text,
        need,
        flops=need.flops,
        hbm=traffic,
        times=calls,
    )

    program = knn._predict.lower(
        *by_rows(features, labels, tests),
        0.07,
        classes=IMAGENET_CLASSES,
        k=options.k,
        tile=1024,
        mesh=mesh,
    )
    need, text = compiled_need(program)
    passes = -(-rows[1] // 1024) * mesh.size  # of all shards, for each tile of queries
    compared = 4 * rows[1] * features.shape[0]
    yield part(
        f"kNN, k = {options.k}",
        options.topology,
        mesh.size,
        text,
        need,
        flops=PRODUCTS * tally(program).matmul_flops,
        hbm=passes * 4 * rows[0] * width + 2 * compared,
    )

    scale = linear.Scale(*(jax.ShapeDtypeStruct((width,), jnp.float32),) * 2)
    weight = jax.ShapeDtypeStruct((width, IMAGENET_CLASSES), jnp.float32)
    fit = linear.LinearFit(weight, jax.ShapeDtypeStruct((IMAGENET_CLASSES,), jnp.float32))
    program = linear._sum_shards.lower(
        linear._losses,
        laid_out(fit, mesh, P()),
        *by_rows(features, labels, weights),
        laid_out(scale, mesh, P()),
        mesh=mesh,
    )
    need, text = compiled_need(program)
    # Of a tile: the weights, its gradient, and the pair of sums that it is added to.
    arrays = batches[0] * 4 * width * IMAGENET_CLASSES * (1 + 2 + 4)
    yield part(
        f"linear probe, {options.evaluations} passes",
        options.topology,
        mesh.size,
        text,
        need,
        flops=PRODUCTS * tally(program).matmul_flops,
        hbm=2 * 4 * rows[0] * width + arrays,
        times=options.evaluations,
    ) | {"host": options.evaluations * host_seconds((width + 1) * IMAGENET_CLASSES)}


def part(
    name: str,
    topology: str,
    chips: int,
    text: str,
    need: Any,
    *,
    flops: float,
    hbm: float,
    times: int = 1,
) -> dict[str, Any]:
    """The work of a program that is called so often, and its seconds at the peaks."""
    generation, _, sides = topology.partition(":")
    chip = CHIPS[generation]
    links = sum(2 if int(side) >= chip.wraps else 1 for side in sides.split("x"))
    traffic = sent(compiled_traffic(text), chips)
    seconds = {
        "FLOPs": times * flops / chip.flops,
        "HBM": times * hbm / HBM[generation],
        "links": times * traffic / (links * chip.link),
    }
    bound = max(seconds, key=lambda name: seconds[name])
    work = {"flops": times * flops, "hbm_bytes": times * hbm, "sent": times * traffic}
    return {"part": name, "need": need, **work, "seconds": seconds, "bound": bound}


def host_seconds(count: int) -> float:
    """Seconds of L-BFGS on this host for an evaluation of a function of so many numbers."""
    calls = 0
    slopes = np.linspace(0.5, 2, count)

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal calls
        calls += 1
        return float(x @ (slopes * x)) / 2 - float(x.sum()), slopes * x - 1

    start = time.perf_counter()
    options = {"maxiter": 12, "gtol": 0.0, "ftol": 0.0}
    scipy.optimize.minimize(
        objective, np.zeros(count), jac=True, method="L-BFGS-B", options=options
    )
    return (time.perf_counter() - start) / calls


def pod_table(record: dict[str, Any]) -> rich.table.Table:
    """The parts for a person to read."""
    table = rich.table.Table(
        f"of a chip of {record['topology']}",
        "TFLOP",
        "GB of HBM",
        "MB sent",
        "s: FLOPs, HBM, links",
        "bound",
        "MiB needed",
        "s of the host",
    )
    for row in record["parts"]:
        table.add_row(
            row["part"],
            f"{row['flops'] / 1e12:,.1f}",
            f"{row['hbm_bytes'] / 1e9:,.1f}",
            f"{row['sent'] / 1e6:,.0f}",
            ", ".join(f"{value:.3g}" for value in row["seconds"].values()),
            row["bound"],
            "does not fit" if not row["need"].fits else f"{row['need'].hbm / 2**20:,.0f}",
            f"{row['host']:.1f}" if "host" in row else "",
        )
    return table


def of_processes(options: Options) -> dict[str, Any]:
    """Images per second of one process and of two, of one core each."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        images = np.random.default_rng(0).integers(0, 256, (options.images, 32, 32, 3), np.uint8)
        np.savez(place / "images.npz", images=images)
        _create(place)
        for turn in range(options.repeats):
            for count in rates:
                rates[count].append(_rate(place, count, f"{turn}-{count}.npz"))
    faster = statistics.median(rates[2]) / statistics.median(rates[1])
    return {"images": options.images, "images_per_second": rates, "faster": faster}


def _create(place: pathlib.Path) -> None:
    """A run of an untrained encoder."""
    data = Data(f"npz:{place}/images.npz", mean=(0.5,) * 3, std=(0.25,) * 3)
    config = jaxclr.Config(
        method=METHODS["sim_affinity"]().with_heads(hidden=16, out=8),
        encoder=SmallConv(widths=(32, 64, 128)),
        data=data,
        augmentation=with_size(AUGMENTATIONS["byol"], 32),
        batch_size=64,
    )
    session = open_session(config)
    run = RunFolder(place / "run")
    run.create(session.config, overwrite=False)
    with Checkpoints(run.checkpoints) as checkpoints:
        checkpoints.save(session.init_state(), 1)


def _rate(place: pathlib.Path, count: int, out: str) -> float:
    where = ["localhost:" + str(launch._free_port()), str(count)]
    command = [sys.executable, __file__, "--worker", str(place), out, *where]
    flags = "--xla_force_host_platform_device_count=1 --xla_cpu_multi_thread_eigen=false"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            [*command, str(index)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda core=core: os.sched_setaffinity(0, {core}),
        )
        for index, core in enumerate(sorted(os.sched_getaffinity(0))[:count])
    ]
    told = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("A process failed.")
    return float(told[0].splitlines()[-1])


def worker(place: str, out: str, coordinator: str, count: str, index: str) -> None:
    """Embeds, and prints the images per second after the first batch."""
    if int(count) > 1:
        runtime.initialize(runtime.Distributed(coordinator, int(count), int(index)))
    seen: list[tuple[float, int]] = []
    report = lambda done, _: seen.append((time.perf_counter(), done))
    jaxclr.Run(pathlib.Path(place) / "run").embed(pathlib.Path(place) / out, report=report)
    if runtime.is_first():
        (start, first), (end, last) = seen[0], seen[-1]
        print((last - first) / (end - start))


def process_table(record: dict[str, Any]) -> rich.table.Table:
    """The rates for a person to read."""
    table = rich.table.Table("processes of one core", "images/s, median")
    for count, rates in record["images_per_second"].items():
        table.add_row(str(count), f"{number(statistics.median(rates))} of {len(rates)} runs")
    told = verdict(record["faster"], least=FASTER_BAR)
    table.add_row("times one", f"{record['faster']:.2f}; {told}")
    return table


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
    else:
        main(tyro.cli(Options, description=__doc__))
