"""The configuration of a run: frozen dataclasses, their JSON, and the differences of two."""

import collections.abc
import dataclasses
import difflib
import functools
import json
import pathlib
import typing
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import cattrs
from annotated_types import Ge, Gt, Interval
from cattrs.gen import make_dict_structure_fn
from cattrs.strategies import configure_tagged_union

from jaxclr.augment import AUGMENTATIONS, Augmentation, DigitView, PhotoView
from jaxclr.data import Arrays, Data, Source, absolute
from jaxclr.encoders import ENCODERS, Copies, Mlp, Nnx, Remat, check_encoder
from jaxclr.errors import UserError, cut, shown
from jaxclr.fields import check_fields
from jaxclr.methods import METHODS, Imported, Method, MomentumEncoder, Target
from jaxclr.runs import parts
from jaxclr.steps.optimizers import OPTIMIZERS, Sgd, check_optimizer
from jaxclr.steps.sharding import StateSharding
from jaxclr.steps.step import Mapper
from jaxclr.version import __version__


class Extension(NamedTuple):
    """A run was made longer: from a step on, its schedules are those of the longer run.

    Attributes:
      step: the number of steps that were completed.
      steps: the number of steps that the run was to have before.
    """

    step: int
    steps: int


@dataclasses.dataclass(frozen=True)
class Config:
    """The configuration of a run."""

    method: Method
    """Objective, heads and target."""

    encoder: Any = ENCODERS["resnet18"]
    """The network: a spec of jaxclr.encoders, an object with build(axis_name) -> flax.linen.Module,
    a Linen module, encoders.Nnx(factory), or a tuple of these, one for each view."""

    data: Any = Data()
    """The data: Data, data.Arrays or data.Source."""

    augmentation: Augmentation = AUGMENTATIONS["cifar"]
    """The views of each example."""

    optimizer: Any = Sgd()
    """The optimizer: a spec, or a function of the learning-rate schedule that returns an
    optax.GradientTransformation. The peak of its schedule is the function's `learning_rate` (1e-3
    if it has none) times batch_size / 256."""

    epochs: Annotated[int, Ge(1)] = 200
    """Passes over the training images; the last incomplete batch of each is left out. More than
    an existing run has extend it: from its newest checkpoint on, all schedules are those of the
    longer run, so 200 epochs go on to 400 at half the peak rate."""

    steps: Annotated[int, Ge(1)] | None = None
    """Steps of training, in place of `epochs`; None for `epochs`."""

    batch_size: Annotated[int, Ge(1)] = 512
    """Images in a step, over all devices."""

    micro_batches: Annotated[int, Ge(1)] = 1
    """Parts in which each device embeds its rows, one after the other, with memory for one. Loss
    and gradient remain those of the complete batch. Only BatchNorm differs: it normalizes each
    micro-batch by its own statistics (over all devices) and updates the running statistics once for
    each micro-batch and view, in order."""

    warmup_epochs: Annotated[float, Ge(0)] = 10.0
    """Epochs of linear warm-up before the cosine."""

    warmup_steps: Annotated[int, Ge(0)] | None = None
    """Steps of linear warm-up, in place of `warmup_epochs`; None for `warmup_epochs`."""

    clip_norm: Annotated[float, Gt(0)] | None = None
    """Largest global norm of the gradient; None for no limit."""

    freeze: tuple[str, ...] = ()
    """Patterns of variables that are not trained, such as encoder/layer1* or projector: neither
    gradient, momentum nor weight decay changes them, and their BatchNorms normalize by running
    statistics, which stay as they are."""

    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Seed of parameters, batches and views."""

    mapper: Mapper = "shard_map"
    """How the step is mapped over devices: jit(shard_map) or pmap, with equal results."""

    state_sharding: StateSharding = "replicated"
    """How the state lies on the devices. replicated: every device has all of it. optimizer: the
    devices share the optimizer's state and the momentum encoder. all: the parameters too. Results
    are equal up to rounding; pmap has the first only."""

    log_every: Annotated[int, Ge(1)] = 10
    """Steps between lines in metrics.jsonl."""

    observe_every: Annotated[int, Ge(0)] = 50
    """Steps between measurements of the embeddings: ranks, spectrum, alignment, histograms of
    cosines, signs of collapse; 0 for none. The first and the last step are always measured."""

    evaluate_every: Annotated[float, Ge(0)] = 0
    """Epochs between kNN evaluations in training, such as 5 or 0.1; 0 for none. The last step
    always has one."""

    checkpoint_every: Annotated[float, Gt(0)] = 10
    """Epochs between checkpoints, such as 5 or 0.1. The last step always has one."""

    checkpoint_minutes: Annotated[float, Gt(0)] | None = None
    """Minutes after which there is a checkpoint in any case; None for no limit. Several processes
    look at the clock when they log."""

    keep: Annotated[int, Ge(1)] = 2
    """Checkpoints to keep, the newest ones."""

    extensions: tuple[Extension, ...] = ()
    """(step, number of steps before) of each time that the run was made longer; written by the run
    itself."""

    def __post_init__(self) -> None:
        for name, kinds, wanted in _KINDS:
            part = getattr(self, name)
            if not isinstance(part, kinds):
                got = (
                    f"the class {part.__name__}" if isinstance(part, type) else type(part).__name__
                )
                raise UserError(f"{name} must be {wanted}, got {got}.")
        check_fields(self)
        if self.steps is None and self.warmup_steps is None and self.warmup_epochs > self.epochs:
            raise UserError(
                f"warmup_epochs must be at most {self.epochs} epochs, got {self.warmup_epochs}."
            )
        if not all(0 < number < 2**31 for one in self.extensions for number in one):
            raise UserError(
                f"extensions must be pairs of steps, from 1 to 2^31, got {self.extensions!r}."
            )
        if self.mapper == "pmap" and self.state_sharding != "replicated":
            raise UserError(
                f"state_sharding '{self.state_sharding}' needs --mapper shard_map: pmap keeps a "
                "copy of the state on every device."
            )
        check_encoder(self.encoder)
        check_optimizer(self.optimizer)
        self.method.check_views(len(self.augmentation.views))


_KINDS = (
    ("method", Method, "a method, such as jaxclr.methods.SimAffinity()"),
    ("data", Data | Arrays | Source, "jaxclr.Data, data.Arrays or data.Source"),
    (
        "augmentation",
        Augmentation,
        "an augmentation, such as jaxclr.augment.Augmentation(views=(view1, view2))",
    ),
)


def to_json(config: Config, **extra: Any) -> str:
    """The configuration as JSON, with the version that wrote it; see `parts` for names of parts."""
    return (
        json.dumps({"jaxclr": __version__, **extra, **parts.describe(config, Config)}, indent=2)
        + "\n"
    )


def from_json(
    text: str, *, folder: pathlib.Path | None = None, session: Config | None = None
) -> Config:
    """The configuration that `to_json` wrote.

    Args:
      text: the JSON.
      folder: folder of the run, with copied files of parts; their code is run.
      session: a configuration that provides the parts that only a Python session has.

    Raises:
      UserError: the text is not JSON, has an unknown field, lacks a field, or has a value of
        another type or out of range; or parts are needed that only a session has.
    """
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise UserError(f"The configuration is not JSON: {error}.") from error
    if not isinstance(tree, dict):
        raise UserError(
            f"The configuration is {type(tree).__name__} in JSON, not an object of fields."
        )
    version = tree.pop("jaxclr", None)
    tree.pop("experiment", None)
    tree.pop("absolute", None)
    try:
        if version is None:
            _migrate(tree, folder)
        _take_from_session(tree, session)
        return _converter(folder).structure(tree, Config)
    except UserError:
        raise
    except Exception as error:  # besides the converter's errors, those of a part's own code
        newer = (
            f" It was written by jaxclr {version!s:.40}."
            if version not in (None, __version__)
            else ""
        )
        raise UserError(
            f"The configuration cannot be read: {_first_cause(error)}{newer}"
        ) from error


# Fields that change no result, and may differ when a run goes on.
CHANGEABLE = frozenset(
    {
        "log_every",
        "observe_every",
        "evaluate_every",
        "checkpoint_every",
        "checkpoint_minutes",
        "keep",
        "state_sharding",
        "data.memory_limit",
        "data.workers",
    }
)
LENGTH = frozenset({"epochs", "steps"})  # fields that may grow when a run goes on


def differences(one: Config, other: Config) -> dict[str, str]:
    """The fields in which two configurations differ, by name.

    The values are sentences: "method.temperature: 0.5 is now 0.2". Extensions are not compared:
    the run itself writes them.
    """
    first, second = (
        dict(_leaves(json.loads(to_json(with_absolute_paths(config))))) for config in (one, other)
    )
    absent = "absent"
    return {
        name: f"{name}: {first.get(name, absent)!r} is now {second.get(name, absent)!r}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name, absent) != second.get(name, absent) and not name.startswith("extensions")
    }


def extensions_at(
    step: int, extensions: tuple[Extension, ...], steps: int
) -> tuple[Extension, ...]:
    """The extensions of a run that is made longer now.

    Args:
      step: of the newest checkpoint; 0 without one: the run has not begun.
      extensions: those before.
      steps: the number of steps that the run was to have.
    """
    past = tuple(one for one in extensions if one.step < step)
    later = [one.steps for one in extensions if one.step >= step]
    return (*past, Extension(step, (*later, steps)[0])) if step else ()


def with_absolute_paths(config: Config) -> Config:
    """The same configuration, with absolute paths of its data."""
    data = config.data
    return dataclasses.replace(config, data=absolute(data)) if isinstance(data, Data) else config


def class_names() -> dict[str, type]:
    """The classes of this library that JSON names by "type"."""
    encoders = {type(encoder) for encoder in ENCODERS.values()}
    kinds = {
        *METHODS.values(),
        *encoders,
        *OPTIMIZERS.values(),
        Imported,
        Copies,
        Nnx,
        Mlp,
        PhotoView,
        DigitView,
    }
    return {kind.__name__: kind for kind in (*kinds, Augmentation, Data, Arrays, Source)}


def _take_from_session(tree: dict[str, Any], session: Config | None) -> None:
    """Replaces fields that only a session has by those of its configuration, in place."""
    for field in dataclasses.fields(Config):
        missing = parts.session_parts(tree.get(field.name), field.name)
        if not missing:
            continue
        listed = "; ".join(f"{path}: {what}" for path, what in missing)
        if session is None:
            raise parts.SessionOnly(
                "The run has parts that only the Python session that started it has "
                f"({listed}). Open it there with jaxclr.Run(folder, config=config)."
            )
        part = getattr(session, field.name)
        now, before = parts.describe(part, parts.exact_class(Config, field.name)), tree[field.name]
        if _without_statistics(now) != _without_statistics(before):
            raise UserError(
                f"The run was made with another {field.name} than that of the configuration given "
                f"({listed})."
            )
        if field.name == "data" and before.get("mean") is not None:  # measured when the run began
            part = dataclasses.replace(part, mean=tuple(before["mean"]), std=tuple(before["std"]))
        tree[field.name] = part


def _without_statistics(tree: Any) -> Any:
    return (
        {k: v for k, v in tree.items() if k not in ("mean", "std")}
        if isinstance(tree, dict)
        else tree
    )


def _migrate(tree: dict[str, Any], folder: pathlib.Path | None) -> None:
    """Converts a configuration of jaxclr 0.1 to the current form, in place.

    It named a user's methods by their class alone. It stored heads and target of every method;
    those of methods without such fields are dropped if they equal the method's own, and later
    rejected as unknown fields otherwise.
    """
    if isinstance(tree.get("data"), dict):
        tree["data"].setdefault("type", "Data")
    method = tree.get("method")
    if not isinstance(method, dict):
        return
    kind = class_names().get(str(method.get("type")))
    if kind is None:
        if folder is None or not (folder / "method.py").is_file():
            return
        method["type"] = f"method.py:{method.get('type')}"
        kind = parts.resolve(method["type"], folder)
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    for name in ("projector", "predictor", "target"):
        if name in method and name not in fields:
            stored, constant = method[name], parts.describe(getattr(kind, name))
            if isinstance(stored, dict) and isinstance(constant, dict):
                # Fields that came later are not stored.
                constant = {key: value for key, value in constant.items() if key in stored}
            if stored in (constant, parts.untagged(constant)):
                del method[name]
    if fields.get("target") is MomentumEncoder and isinstance(method.get("target"), dict):
        method["target"].pop("type", None)


@functools.cache
def _converter(folder: pathlib.Path | None) -> cattrs.Converter:
    """A converter that reads parts of a user's own from a run's folder."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    configure_tagged_union(Target, converter, tag_name="type")
    for kind in (int, float, bool, str):
        converter.register_structure_hook(kind, _exactly)
    # It was a bool before; the dataclass checks the value.
    converter.register_structure_hook_func(
        lambda kind: kind == Remat,
        lambda value, _: ("none", "blocks")[value] if isinstance(value, bool) else value,
    )

    def part(value: Any, hint: Any = None) -> Any:
        if isinstance(value, list):
            return tuple(map(part, value))
        if not isinstance(value, Mapping):
            return value
        if set(value) == {"function"}:
            return parts.resolve(value["function"], folder)
        if not isinstance(value.get("type"), str):
            if hint is None:
                return {key: part(entry) for key, entry in value.items()}
            raise KeyError("type")
        name = value["type"]
        fields = {key: entry for key, entry in value.items() if key != "type"}
        if not parts.is_own(name):
            if name not in class_names():
                raise KeyError(name)
            return converter.structure(fields, class_names()[name])
        kind = parts.resolve(name, folder)
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            raise UserError(f"{name} is not a dataclass; the run cannot be read back.")
        if issubclass(kind, Method):
            return converter.structure(fields, kind)
        return kind(**{key: part(entry) for key, entry in fields.items()})

    is_callable = lambda kind: typing.get_origin(kind) is collections.abc.Callable
    converter.register_structure_hook_func(is_callable, lambda value, _: part(value))
    converter.register_structure_hook_func(
        lambda kind: kind in (Any, tuple[Any, ...]), lambda value, _: part(value)
    )
    converter.register_structure_hook_func(
        lambda kind: kind is Method, lambda value, _: part(value, Method)
    )
    read_fields = make_dict_structure_fn(Augmentation, converter)
    converter.register_structure_hook(
        Augmentation,
        lambda value, kind: value if isinstance(value, kind) else read_fields(value, kind),
    )
    return converter


def _exactly(value: Any, kind: type) -> Any:
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{shown(value)} is not of type {kind.__name__}")
    return kind(value)


def _first_cause(error: BaseException, path: str = "") -> str:
    """The innermost reason of a failed conversion, with the path of fields to it."""
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
        return f"{shown(error.args[0])} is missing or names no type that exists."
    if isinstance(error, UserError):
        return str(error)
    return f"{path}: {cut(str(error), 300)}."


def _leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        return [leaf for key, value in tree.items() for leaf in _leaves(value, f"{prefix}.{key}")]
    if isinstance(tree, list) and any(isinstance(value, dict) for value in tree):
        return [leaf for i, value in enumerate(tree) for leaf in _leaves(value, f"{prefix}.{i}")]
    return [(prefix.removeprefix("."), tree)]
