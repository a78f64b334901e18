"""`jaxclr embed`, `jaxclr export`, `jaxclr import`: what leaves a run, and what enters one."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import rich.console
import rich.progress
import tyro

from jaxclr.cli.console import named, parse, say, take
from jaxclr.cli.opening import open_run
from jaxclr.data import Data
from jaxclr.encoders import ENCODERS, Encoder, ResNet, ViT
from jaxclr.errors import UserError
from jaxclr.interop import exporting, importing
from jaxclr.interop.embedding import Number
from jaxclr.runs.folder import RunFolder


@dataclasses.dataclass(frozen=True)
class EmbedOptions:
    """Options of `jaxclr embed`."""

    out: pathlib.Path
    """File that ends in .npz or .parquet."""

    data: Any
    """What to embed, and how to read it; the run's own unless told otherwise."""

    trust: bool = False
    """Run the code that lies in the folder although another user put it there."""

    dtype: Number = "float32"
    """Of the numbers in the file."""

    overwrite: bool = False
    """Replace the file, and start anew if the embedding of something else was interrupted."""


def embed(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Write representations of images: jaxclr embed RUN [DATA] --out FILE.npz|.parquet"""
    places, rest = _leading(arguments, 2)
    run = _run_of(places, rest, "embed RUN [DATA] --out FILE")
    run = open_run(run, console, trust="--trust" in rest) if run else None
    data = run.config.data if run else Data()
    if len(places) > 1:
        # Resizing was for the run's own images.
        image_size = data.image_size if places[1].partition(":")[0] in ("folder", "tfds") else None
        data = dataclasses.replace(data, source=places[1], image_size=image_size)
    options = parse(
        EmbedOptions,
        rest,
        "embed RUN [DATA]",
        description="Write the representations of all images of the run's data, or of DATA (folder:PATH, tfds:NAME, npz:PATH, "
        "digits), with names, splits and labels. An interrupted embedding is continued by the same command. Images "
        "stay in their files with --data.streaming always, and memory is a few batches.",
        default=EmbedOptions(out=tyro.MISSING, data=data),
    )
    assert run is not None  # --help has ended before
    with rich.progress.Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("embedding", total=None)
        rows = run.embed(
            options.out,
            options.data,
            dtype=options.dtype,
            overwrite=options.overwrite,
            report=lambda done, count: progress.update(task, completed=done, total=count),
        )
    told = " and ".join(f"{count} of {split}" for split, count in rows.items())
    source = getattr(options.data, "source", "the run's data")
    say(console, f"{options.out}: representations of {told} of '{source}', {options.dtype}.")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Options of `jaxclr export`."""

    run: tyro.conf.Positional[pathlib.Path]
    """Folder of the run."""

    to: exporting.Format
    """safetensors: weights under torchvision's (ResNet) or timm's (ViT) names; stablehlo: the encoder as a function, which
    runs with JAX alone."""

    out: pathlib.Path
    """The file."""

    image_size: int | None = None
    """Side in pixels of the images that the function takes, or that a ViT's positions are for; None: that of the run."""

    overwrite: bool = False
    """Replace the file, if there is one."""

    trust: bool = False
    """Run the code that lies in the folder although another user put it there."""


def export(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Write an encoder for other programs: jaxclr export RUN --to safetensors|stablehlo --out FILE"""
    words = "Write the encoder of a run's newest checkpoint for other programs."
    options = parse(ExportOptions, arguments, "export", description=words)
    if options.image_size is not None and options.image_size < 1:
        raise UserError(f"--image-size must be at least 1, got {options.image_size}.")
    run = open_run(options.run, console, trust=options.trust)
    loaded = run.export(
        options.out, options.to, image_size=options.image_size, overwrite=options.overwrite
    )
    say(
        console,
        f"{options.out}: {type(loaded.config.encoder).__name__} of step {loaded.step}, {options.to}.",
    )


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Options of `jaxclr import`."""

    out: pathlib.Path
    """Folder of the run to make."""

    encoder: Annotated[Encoder, tyro.conf.arg(name="encoder")]
    """What the weights are of."""

    data: Data = Data()
    """What to evaluate the encoder on; mean and std are ImageNet's unless given."""

    image_size: int | None = None
    """Side in pixels to which images are brought; None: that of the encoder, or of its positions in the file."""

    prefix: str | None = None
    """What stands before the encoder's names in the file; None: found."""

    overwrite: bool = False
    """Replace the run in that folder, if there is one."""


def import_(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Make a run of public weights: jaxclr import FILE --encoder NAME --out RUN"""
    places, rest = _leading(arguments, 1)
    name = take(rest, "encoder")
    help_ = bool({"-h", "--help"} & set(rest))
    if not help_ and not places:
        raise UserError("Give a file of weights: jaxclr import FILE --encoder NAME --out RUN.")
    if not help_ and name is None:
        raise UserError(f"Say what {places[0]} holds with --encoder: {', '.join(_importable())}.")
    options = parse(
        ImportOptions,
        rest,
        "import FILE --encoder NAME",
        description="Read an encoder from .safetensors, or from a PyTorch checkpoint where PyTorch is installed, in the "
        "layouts of torchvision, timm, MoCo, UniCLR, SimSiam, BYOL, VICReg, Barlow Twins, SwAV and solo-learn, and make the "
        "folder of a run of it, for `jaxclr evaluate`, `embed` and `export`. --encoder chooses by name; its fields below are "
        "then those of the choice.",
        default=ImportOptions(
            out=tyro.MISSING, encoder=named("encoder", name or "resnet50", ENCODERS)
        ),
    )
    path = pathlib.Path(places[0])
    if options.image_size is not None and options.image_size < 1:
        raise UserError(f"--image-size must be at least 1, got {options.image_size}.")
    weights = importing.import_encoder(
        path,
        options.encoder,
        RunFolder(options.out),
        data=options.data,
        side=options.image_size,
        prefix=options.prefix,
        overwrite=options.overwrite,
    )
    found = weights.found
    say(
        console,
        f"{options.out}: {name}, all {len(found.arrays)} arrays at '{found.prefix.rstrip('.')}' of {path}.",
    )
    if found.aside:
        say(
            console,
            f"Not of the encoder: {', '.join(f'{part} ({count})' for part, count in found.aside.items())}.",
        )
    for note in _notes(options.encoder):
        say(console, note)


def _notes(spec: ResNet | ViT) -> list[str]:
    """What no file tells, and is taken to be so."""
    if isinstance(spec, ViT):
        told = "MoCo v3's ViT-S has 12, timm's and DeiT's 6"
        return [f"Taken to have {spec.heads} heads, which the file does not say: {told}."]
    if spec.stem == "cifar":
        told = "solo-learn's for CIFAR pads by two"
        return [
            f"Taken to pad the first convolution by one pixel, which the file does not say: {told}."
        ]
    return []


def _importable() -> list[str]:
    return [name for name, spec in ENCODERS.items() if isinstance(spec, ResNet | ViT)]


def _leading(arguments: Sequence[str], most: int) -> tuple[list[str], list[str]]:
    """The arguments before the first option, and the rest."""
    arguments = list(arguments)
    count = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    if count > most:
        raise UserError(f"'{arguments[most]}' is one argument too many; options start with --.")
    return arguments[:count], arguments[count:]


def _run_of(places: list[str], rest: list[str], usage: str) -> pathlib.Path | None:
    """The folder of a run; None where only help is wanted."""
    if places:
        return pathlib.Path(places[0])
    if {"-h", "--help"} & set(rest):
        return None
    raise UserError(f"Give the folder of a run: jaxclr {usage}.")
