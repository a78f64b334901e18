"""Memory and FLOPs of an encoder's gradient for each `remat`, compiled for a TPU without one.

    python experiments/benchmarks/remat.py [--encoder vit_base] [--batch 64] [--out FILE.json]

libtpu, the TPU's compiler, must be installed (pip install 'jax[tpu]'). Nothing is run; figures are
the compiler's, for one v5e chip and images of 224 pixels in bfloat16. Compiling takes minutes.
"""

import dataclasses
import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import rich.table
import tyro
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from lowered import Need, need_of
from measure import Output
from programs import mesh_of, pod, prepare_compiler

from jaxclr.encoders import ENCODERS, Encoder, Remat

SIDE = 224
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Memory and FLOPs of an encoder's gradient for each `remat`, compiled for a TPU."""

    encoder: Literal["vit_small", "vit_base", "vit_large", "vit_huge", "resnet50"] = "vit_base"
    """Encoder."""

    batch: int = 64
    """Images."""


def main(options: Options) -> None:
    prepare_compiler()
    sharding = NamedSharding(mesh_of(pod("v5e:2x2")[:1]), P())
    table = rich.table.Table("remat", "temporaries, GiB", "TFLOP", "compilation, s")
    results: dict[str, Need] = {}
    for remat in get_args(Remat):
        spec = dataclasses.replace(ENCODERS[options.encoder], dtype="bfloat16", remat=remat)
        need = results[remat] = need_of(gradient(spec, options.batch, sharding))
        cells = (need.temporaries or 0) / GIB, (need.flops or 0) / 1e12, need.seconds
        table.add_row(remat, *(f"{cell:.2f}" for cell in cells) if need.fits else ("does not fit",))
    machine = {"compiler": "libtpu", "chip": "v5e", "encoder": options.encoder}
    options.tell({"machine": machine, "batch": options.batch, "results": results}, [table])


def gradient(spec: Encoder, batch: int, sharding: NamedSharding) -> jax.stages.Lowered:
    """The gradient of a function of the representations, for one chip."""
    module = spec.build(None)
    on_chip = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
    images = on_chip((batch, SIDE, SIDE, 3), jnp.bfloat16)
    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), images)
    variables = jax.tree.map(lambda leaf: on_chip(leaf.shape, leaf.dtype), shapes)

    def loss(params: Any, rest: Any, images: jax.Array) -> jax.Array:
        variables = {"params": params, **rest}
        out, _ = module.apply(variables, images, True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(out).astype(jnp.float32))

    return jax.jit(jax.grad(loss)).lower(variables.pop("params"), variables, images)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
