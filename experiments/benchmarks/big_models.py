"""Memory and traffic of MoCo v3 with large ViTs on TPU pods, compiled without a TPU.

    python experiments/benchmarks/big_models.py --models base large huge --out build/bench/big.json

One row for each pod, model and `state_sharding`, of the complete step of imagenet_vit_small.py with
another encoder: bfloat16 at 224 pixels, two views, a momentum encoder, AdamW, blocks recomputed for
the gradient. `state` is what a chip stores between steps, HBM what a step needs at its peak, both
from the compiler, and `sent` the bytes that leave a chip in a step; see pod.py and scaling.py.
Every row takes minutes of one core.
"""

import dataclasses
import pathlib
import sys
from typing import Any, Literal

import rich.console
import rich.table
import tyro
from lowered import compiled_need
from measure import Output
from pod import machine, size
from programs import mesh_of, pod, prepare_compiler, recipe_of, step_program
from scaling import compiled_traffic, sent

from jaxclr.encoders import ViT
from jaxclr.errors import UserError
from jaxclr.runs.experiments import load_experiment
from jaxclr.steps.sharding import STATE_SHARDINGS, StateSharding

EXPERIMENT = pathlib.Path(__file__).parents[1] / "imagenet_vit_small.py"
SHAPE = (256, 256, 3)  # of a source image


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Memory and traffic of MoCo v3 with large ViTs on TPU pods, compiled without a TPU."""

    models: tuple[str, ...] = ("base", "large", "huge", "giant")
    """Sizes of the ViT."""

    pods: tuple[str, ...] = ("v5e:16x16", "v5p:4x8x8")
    """TPU generations and shapes, in libtpu's words."""

    shardings: tuple[StateSharding, ...] = STATE_SHARDINGS
    """How the state lies on the chips."""

    batch: int = 16
    """Images of a chip: MoCo v3's 4,096 on 256 chips."""

    remat: Literal["none", "blocks", "dots"] = "blocks"
    """What is stored for the gradient."""


def main(options: Options) -> None:
    console = rich.console.Console(width=200)
    prepare_compiler()
    rows = []
    for topology in options.pods:
        for model in options.models:
            for sharding in options.shardings:
                rows.append(measure(topology, model, sharding, options))
                console.log(*(f"{name}={value}" for name, value in rows[-1].items()))
    options.tell({"machine": machine(), "rows": rows}, [table(rows)])


def measure(topology: str, model: str, sharding: StateSharding, options: Options) -> dict[str, Any]:
    """The figures of one chip."""
    mesh = mesh_of(pod(topology))
    config = dataclasses.replace(
        load_experiment(EXPERIMENT, method="moco_v3"),
        encoder=ViT(size=model, frozen_patch_embedding=True, dtype="bfloat16", remat=options.remat),
        state_sharding=sharding,
    )
    recipe = recipe_of(config, global_batch=options.batch * mesh.size, channels=SHAPE[-1])
    need, text = compiled_need(step_program(recipe, mesh, options.batch, SHAPE))
    traffic = compiled_traffic(text) if text else {}
    return {
        "topology": topology,
        "chips": mesh.size,
        "model": model,
        "sharding": sharding,
        "images": options.batch,
        "remat": options.remat,
        "fits": need.fits,
        "hbm": need.hbm,
        "limit": need.limit,
        "state": need.aliased,
        "temporaries": need.temporaries,
        "sent": sent(traffic, mesh.size) if text else None,
        "collectives": {kind: dataclasses.asdict(of) for kind, of in traffic.items()},
        "seconds": need.seconds,
    }


def table(rows: list[dict[str, Any]]) -> rich.table.Table:
    """The rows for a person to read."""
    shown = rich.table.Table(
        "pod", "ViT", "state_sharding", "images a chip", "state", "HBM", "sent", "compiled in"
    )
    told = lambda count: "" if count is None else size(count)
    for row in rows:
        hbm = told(row["hbm"]) + "" if row["fits"] else f"{told(row['hbm'])}: does not fit"
        shown.add_row(
            row["topology"],
            row["model"],
            row["sharding"],
            str(row["images"]),
            told(row["state"]),
            hbm,
            told(row["sent"]),
            f"{row['seconds']:.0f} s",
        )
    return shown


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except UserError as error:
        sys.exit(str(error))
