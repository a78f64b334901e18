"""Location and names of an encoder's arrays in a file of weights.

Files differ in what stands before the names: MoCo v3 and UniCLR have
state_dict.module.base_encoder. and .momentum_encoder., MoCo v2 .encoder_q. and .encoder_k., SimSiam
.encoder., solo-learn state_dict.backbone., SwAV module., torchvision, timm, VICReg and Barlow Twins
nothing, DINOv2 nothing or teacher.backbone. So an encoder is found by a name that it must have,
with any prefix. Of an encoder and its moving average, the encoder is taken.
"""

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from jaxclr.encoders import ResNet, ViT
from jaxclr.errors import UserError
from jaxclr.interop.weights import Stored

# Parts beside the encoder's arrays, under the same prefix, that are not read.
HEADS = (
    "fc",
    "head",
    "heads",
    "classifier",
    "projection_head",
    "projector",
    "predictor",
    "prototypes",
    "queue",
    "queue_ptr",
    "mask_token",
)
AVERAGED = {"momentum", "k", "target", "teacher", "ema"}
COUNTER = "num_batches_tracked"


class Dialect(NamedTuple):
    """A way to name the arrays of an encoder.

    Attributes:
      landmark: a name that every encoder has.
      rename: a name in torchvision's (ResNet) or timm's (ViT) words.
    """

    landmark: str
    rename: Callable[[str], str]


class Found(NamedTuple):
    """An encoder in a file.

    Attributes:
      prefix: what stands before its names in the file.
      arrays: its arrays by torchvision's or timm's names, without heads and counters.
      aside: how many other arrays there are, by the part that they belong to.
    """

    prefix: str
    arrays: dict[str, Stored]
    aside: dict[str, int]


def find_encoder(arrays: Mapping[str, Stored], spec: ResNet | ViT, prefix: str | None) -> Found:
    """The encoder among the arrays of a file.

    Args:
      arrays: by name.
      spec: what to look for.
      prefix: what stands before its names; None: to be found.

    Raises:
      UserError: there is none, there are several to choose from, or none at that prefix.
    """
    dialects = _RESNET if isinstance(spec, ResNet) else _VIT
    places = {place: dialect for dialect in dialects for place in _places(arrays, dialect.landmark)}
    kind = type(spec).__name__
    if not places:
        wanted = " nor ".join(dialect.landmark for dialect in dialects)
        raise UserError(f"holds no {kind}: no name ends in {wanted}; it has {_some(arrays)}")
    if prefix is not None and prefix not in places:
        prefix = f"{prefix}."
    if prefix is None:
        prefix = _the_one(places)
    if prefix not in places:
        raise UserError(
            f"holds no {kind} at prefix '{prefix.rstrip('.')}'; there is one at {_quoted(places)}"
        )
    rename = places[prefix].rename
    own, aside = {}, {}
    for name, array in arrays.items():
        inner = name.removeprefix(prefix)
        head = inner.split(".")[0]
        if not name.startswith(prefix) or head in HEADS:
            part = f"{prefix}{head}" if name.startswith(prefix) else _part(name, prefix)
            aside[part] = aside.get(part, 0) + 1
        elif not inner.endswith(COUNTER):
            own[rename(inner)] = array
    return Found(prefix, _with_gates(own), aside)


def check_complete(found: Found, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UserError unless the arrays are exactly those of an encoder, in its shapes."""
    missing = [name for name in shapes if name not in found.arrays]
    left = [name for name in found.arrays if name not in shapes]
    wrong = [
        name for name in shapes if name in found.arrays and found.arrays[name].shape != shapes[name]
    ]
    said = []
    if missing:
        said.append(f"it lacks {_some(missing)}")
    if left:
        said.append(f"{_some(left)} would be left over")
    if wrong:
        name = wrong[0]
        said.append(
            f"{name} is {[*found.arrays[name].shape]} there and {[*shapes[name]]} "
            f"here{_more(len(wrong) - 1)}"
        )
    if said:
        raise UserError(f"is of another encoder: {'; '.join(said)}")


def _the_one(places: Collection[str]) -> str:
    trained = [
        place for place in places if len(places) == 1 or not AVERAGED & {*re.split(r"[._]", place)}
    ]
    if len(trained) != 1:
        raise UserError(f"holds several encoders, at {_quoted(places)}; choose one with --prefix")
    return trained[0]


def _places(names: Iterable[str], landmark: str) -> list[str]:
    """The prefixes of all names that end in a landmark."""
    heads = (name.removesuffix(landmark) for name in names if name.endswith(landmark))
    return [head for head in heads if not head or head.endswith(".")]


def _part(name: str, prefix: str) -> str:
    """The part an array belongs to: its name up to one word past the encoder's prefix."""
    words, ours = name.split("."), prefix.split(".")
    same = next((i for i, (a, b) in enumerate(zip(words, ours, strict=False)) if a != b), len(ours))
    return ".".join(words[: same + 1])


def _quoted(places: Iterable[str]) -> str:
    return " and ".join(f"'{place.rstrip('.')}'" for place in places)


def _some(names: Collection[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + _more(len(names) - 3)


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _from_sequential(name: str) -> str:
    """nn.Sequential of a torchvision ResNet's children."""
    head, _, rest = name.partition(".")
    child = {
        "0": "conv1",
        "1": "bn1",
        "4": "layer1",
        "5": "layer2",
        "6": "layer3",
        "7": "layer4",
    }.get(head, head)
    return f"{child}.{rest}"


_TORCHVISION_VIT = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(linear_1|0)\.", ".mlp.fc1."),
    (r"\.mlp\.(linear_2|3)\.", ".mlp.fc2."),
)


def _replaced(name: str, table: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


_DINOV2 = (
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # in chunks, for FSDP
    (r"^register_tokens$", "reg_token"),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
)


def _with_gates(arrays: dict[str, Stored]) -> dict[str, Stored]:
    """The arrays, with fc1_g and fc1_x of a SwiGLU as one, fc1: those of the gate first."""
    joined = dict(arrays)
    for name in arrays:
        other = name.replace(".fc1_g.", ".fc1_x.")
        if other == name or other not in arrays:
            continue
        if not arrays[name].shape or arrays[name].shape != arrays[other].shape:
            continue  # named as missing and left over
        halves = joined.pop(name), joined.pop(other)
        shape = (sum(half.shape[0] for half in halves), *halves[0].shape[1:])
        read = lambda halves=halves: np.concatenate([half.read() for half in halves])
        joined[name.replace(".fc1_g.", ".fc1.")] = Stored(shape, read)
    return joined


_RESNET = (
    Dialect("layer1.0.conv1.weight", str),
    Dialect("4.0.conv1.weight", _from_sequential),
)
_VIT = (
    Dialect("blocks.0.norm1.weight", functools.partial(_replaced, table=_DINOV2)),
    Dialect("blocks.0.0.norm1.weight", functools.partial(_replaced, table=_DINOV2)),
    Dialect(
        "encoder.layers.encoder_layer_0.ln_1.weight",
        functools.partial(_replaced, table=_TORCHVISION_VIT),
    ),
)
