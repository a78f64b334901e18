"""Memory and FLOPs of LoCo's step and of SimCLR's, compiled for a TPU without one.

    python experiments/benchmarks/local_units.py [--batch 64] [--out FILE.json]

libtpu, the TPU's compiler, must be installed (pip install 'jax[tpu]'). Nothing is run; figures are
the compiler's, for imagenet.py on one v5e chip. Compiling takes minutes.
"""

import dataclasses
import pathlib

import rich.table
import tyro
from lowered import Need, need_of
from measure import Output
from programs import mesh_of, pod, prepare_compiler, recipe_of, step_program

from jaxclr.runs.experiments import load_experiment

RECIPES = pathlib.Path(__file__).parents[1] / "imagenet.py"
SHAPE = (224, 224, 3)
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Memory and FLOPs of LoCo's step and of SimCLR's, compiled for a TPU."""

    batch: int = 64
    """Images."""


def main(options: Options) -> None:
    prepare_compiler()
    mesh = mesh_of(pod("v5e:2x2")[:1])
    table = rich.table.Table("method", "temporaries, GiB", "TFLOP", "compilation, s")
    configs = {name: load_experiment(RECIPES, method=name) for name in ("simclr", "loco")}
    plain = configs["loco"].method.replace(decoder_blocks=0)
    configs["loco, no blocks"] = dataclasses.replace(configs["loco"], method=plain)
    results: dict[str, Need] = {}
    for name, config in configs.items():
        recipe = recipe_of(config, global_batch=options.batch, channels=3)
        need = results[name] = need_of(step_program(recipe, mesh, options.batch, SHAPE))
        cells = (need.temporaries or 0) / GIB, (need.flops or 0) / 1e12, need.seconds
        table.add_row(name, *(f"{cell:.2f}" for cell in cells) if need.fits else ("does not fit",))
    machine = {"compiler": "libtpu", "chip": "v5e"}
    options.tell({"machine": machine, "batch": options.batch, "results": results}, [table])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
