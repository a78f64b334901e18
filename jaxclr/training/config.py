"""The configuration of a run: a tree of frozen dataclasses, its JSON, and what differs between two of them."""

import dataclasses
import difflib
import functools
import json
from typing import Annotated, Any

import cattrs
from annotated_types import Ge, Gt, Interval
from cattrs.strategies import configure_tagged_union, include_subclasses

from jaxclr.augment import AUGMENTATIONS, Augmentation, DigitView, PhotoView
from jaxclr.data import Data
from jaxclr.encoders import ENCODERS, Encoder, Mlp
from jaxclr.errors import UserError
from jaxclr.fields import check_fields
from jaxclr.methods import Method, MomentumEncoder, Target
from jaxclr.training.optimizers import Optimizer, Sgd
from jaxclr.training.step import Mapper


@dataclasses.dataclass(frozen=True)
class Config:
    """What a run is."""

    method: Method
    """How to learn: objective, heads and target."""

    encoder: Encoder = ENCODERS["resnet18"]
    """What learns."""

    data: Data = Data()
    """What it learns from."""

    augmentation: Augmentation = AUGMENTATIONS["cifar"]
    """The views that it sees of an image."""

    optimizer: Optimizer = Sgd()
    """How its parameters move."""

    epochs: Annotated[int, Ge(1)] = 200
    """Passes over the training images; the last incomplete batch of each is left out."""

    batch_size: Annotated[int, Ge(1)] = 512
    """Images in a step, over all devices."""

    micro_batches: Annotated[int, Ge(1)] = 1
    """Parts in which each device embeds its rows, one after the other, with memory for one. The loss and its gradient remain
    those of the whole batch; what differs is BatchNorm, which normalises each micro-batch by its own statistics (over all
    devices) and moves the running ones once for each micro-batch and view, in order."""

    warmup_epochs: Annotated[float, Ge(0)] = 10.0
    """Epochs of linear warm-up before the cosine."""

    clip_norm: Annotated[float, Gt(0)] | None = None
    """Largest global norm of the gradient; None for no limit."""

    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Seed of parameters, batches and views."""

    mapper: Mapper = "shard_map"
    """How the step runs on several devices: jit(shard_map) or pmap, with the same numbers."""

    log_every: Annotated[int, Ge(1)] = 10
    """Steps between lines in metrics.jsonl."""

    observe_every: Annotated[int, Ge(0)] = 50
    """Steps between measurements of the embeddings: ranks, spectrum, alignment, histograms of cosines, signs of collapse; 0 for
    none. The first and the last step are always measured."""

    evaluate_every: Annotated[int, Ge(0)] = 0
    """Epochs between kNN evaluations during training; 0 for none. The last epoch is always evaluated."""

    checkpoint_every: Annotated[int, Ge(1)] = 10
    """Epochs between checkpoints. The last epoch always has one."""

    keep: Annotated[int, Ge(1)] = 2
    """Checkpoints to keep, the newest ones."""

    def __post_init__(self) -> None:
        check_fields(self, own=("encoder", "optimizer"))
        if self.warmup_epochs > self.epochs:
            raise UserError(f"warmup_epochs must be at most {self.epochs} epochs, got {self.warmup_epochs}.")
        self.method.check_views(len(self.augmentation.views))


def to_json(config: Config) -> str:
    """The configuration as JSON; classes that stand for a choice carry a "type"."""
    return json.dumps(_converter().unstructure(config, Config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """The configuration that `to_json` wrote.

    Raises:
      UserError: it is no JSON, has a field that does not exist, lacks one, or holds a value of another type or range.
    """
    try:
        return _converter().structure(_without_constants(json.loads(text)), Config)
    except json.JSONDecodeError as error:
        raise UserError(f"The configuration is no JSON: {error}.") from error
    except cattrs.BaseValidationError as error:
        raise UserError(f"The configuration cannot be read: {_first_cause(error)}") from error


def _without_constants(tree: Any) -> Any:
    """A stored configuration less what methods stored as fields before only those with a use for them had them.

    Left out are the heads and target of the method's class, and the type of a target that can have no other. Another
    value stays, and is refused as a field that does not exist.
    """
    stored = tree.get("method") if isinstance(tree, dict) else None
    kind = {kind.__name__: kind for kind in _subclasses(Method)}.get(stored["type"] if stored else "")
    if kind is None:
        return tree
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    method = dict(stored)
    for name, hint in (("projector", Mlp), ("predictor", Mlp | None), ("target", Target)):
        if name in method and name not in fields:
            if method[name] == _converter().unstructure(getattr(kind, name), hint):
                del method[name]
    if fields.get("target") is MomentumEncoder and "target" in method:
        method["target"] = {name: value for name, value in method["target"].items() if name != "type"}
    return {**tree, "method": method}


def differences(one: Config, other: Config) -> list[str]:
    """The fields in which two configurations differ, as "method.temperature: 0.5 is now 0.2"."""
    first, second = (dict(_leaves(json.loads(to_json(config)))) for config in (one, other))
    absent = "absent"
    return [
        f"{name}: {first.get(name, absent)!r} is now {second.get(name, absent)!r}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name, absent) != second.get(name, absent)
    ]


def _converter() -> cattrs.Converter:
    return _make_converter(tuple(_subclasses(Method)))


@functools.cache
def _make_converter(methods: tuple[type[Method], ...]) -> cattrs.Converter:
    """Reads and writes configurations of these methods; experiments may define more of them at any time."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    tagged = functools.partial(configure_tagged_union, tag_name="type")
    for union in (Target, Encoder, Optimizer, PhotoView | DigitView):
        tagged(union, converter)
    include_subclasses(Method, converter, subclasses=(Method, *methods), union_strategy=tagged)
    for kind in (int, float, bool, str):
        converter.register_structure_hook(kind, _exactly)
    return converter


def _subclasses(kind: type) -> list[type]:
    return [sub for child in kind.__subclasses__() for sub in (child, *_subclasses(child))]


def _exactly(value: Any, kind: type) -> Any:
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return kind(value)


def _first_cause(error: BaseException, path: str = "") -> str:
    """The innermost reason of a failed structuring, after the path of fields to it."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        name = sorted(error.extra_fields)[0]
        valid = [field.name for field in dataclasses.fields(error.cl)]
        near = difflib.get_close_matches(name, valid, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        return f"{error.cl.__name__} has no field '{name}'.{hint} Fields: {', '.join(valid)}."
    if isinstance(error, BaseExceptionGroup):
        cause = error.exceptions[0]
        names = [note.name for note in getattr(cause, "__notes__", ()) if hasattr(note, "name")]
        return _first_cause(cause, ".".join([path, *names]).removeprefix("."))
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing or names no type that exists."
    if isinstance(error, UserError):
        return str(error)
    return f"{path}: {error}."


def _leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        return [leaf for key, value in tree.items() for leaf in _leaves(value, f"{prefix}.{key}")]
    if isinstance(tree, list) and any(isinstance(value, dict) for value in tree):
        return [leaf for i, value in enumerate(tree) for leaf in _leaves(value, f"{prefix}.{i}")]
    return [(prefix.removeprefix("."), tree)]
