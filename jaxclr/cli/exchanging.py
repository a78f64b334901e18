"""`jaxclr embed`, `jaxclr export` and `jaxclr import`: exchange with other programs."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import rich.console
import rich.progress
import tyro

from jaxclr.cli.console import asked_help, named, parse, pop_option, print_text
from jaxclr.cli.opening import open_run
from jaxclr.data import Data
from jaxclr.encoders import ENCODERS, Encoder, ResNet, ViT
from jaxclr.errors import UserError
from jaxclr.interop import embedding, exporting, importing
from jaxclr.interop.embedding import Number
from jaxclr.paths import Path, expanded
from jaxclr.processes import runtime
from jaxclr.processes.runtime import Distributed
from jaxclr.runs.folder import RunFolder
from jaxclr.training.compilation_cache import compilation_cache


@dataclasses.dataclass(frozen=True)
class EmbedOptions:
    """Options of `jaxclr embed`."""

    out: pathlib.Path
    """Output file, .npz or .parquet."""

    data: Any
    """Data to embed, by default those of the run."""

    trust: bool = False
    """Run the code stored in the folder, even if another user created it."""

    dtype: Number = "float32"
    """Type of the representations in the file."""

    overwrite: bool = False
    """Replace the file, and discard an interrupted embedding with other options."""

    distributed: Distributed = Distributed()
    """Several processes, each started by the same command."""


def embed(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Write representations of a data set: jaxclr embed RUN [DATA] --out FILE.npz|.parquet"""
    words, rest = _leading(arguments, 2)
    folder = _run_of(words, rest, "embed RUN [DATA] --out FILE")
    run = open_run(folder, console, trust="--trust" in rest) if folder else None
    own = data = run.config.data if run else Data()
    if len(words) > 1:
        data = dataclasses.replace(data, source=words[1])
        if not data.has_files:
            data = dataclasses.replace(data, image_size=None)
    options = parse(
        EmbedOptions,
        rest,
        "embed RUN [DATA]",
        description="Write the representations of the run's data, or of DATA, with file names, "
        "splits and labels. The same command continues an interrupted embedding."
        "\n\nThe run's data keep their splits; DATA are embedded as a whole, in the order of paths "
        "or rows. With --data.streaming always, images are read on demand and memory holds a few "
        "batches.",
        before={
            "RUN": "Folder of the run.",
            "DATA": "Other data: folder:PATH, wds:PATTERN, hf:NAME_OR_PATH, tfds:NAME, npz:PATH or "
            "digits.",
        },
        default=EmbedOptions(out=tyro.MISSING, data=data),
    )
    assert run is not None  # with --help, parse exits
    data, source = options.data, getattr(options.data, "source", "the run's data")
    if len(words) > 1 or source != getattr(own, "source", source):
        data = embedding.whole(data)
    with (
        compilation_cache(),
        rich.progress.Progress(
            console=console, transient=True, disable=not console.is_terminal
        ) as progress,
    ):
        task = progress.add_task("embedding", total=None)
        rows = embedding.embed(
            runtime.run_on_all(run.load),
            data,
            options.out,
            dtype=options.dtype,
            overwrite=options.overwrite,
            report=lambda done, count: progress.update(task, completed=done, total=count),
        )
    counts = " and ".join(f"{count} {split}" for split, count in rows.items())
    print_text(
        console, f"{options.out}: {options.dtype} representations of {counts} rows of '{source}'."
    )


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Options of `jaxclr export`."""

    run: tyro.conf.Positional[Annotated[pathlib.Path, tyro.conf.arg(metavar="RUN")]]
    """Folder of the run."""

    to: exporting.Format
    """safetensors: weights named as in torchvision or timm; stablehlo: a function for JAX."""

    out: pathlib.Path
    """Output file."""

    image_size: int | None = None
    """Side of the images in pixels, for stablehlo and ViT positions; None: that of the run."""

    overwrite: bool = False
    """Replace an existing file."""

    trust: bool = False
    """Run the code stored in the folder, even if another user created it."""


def export(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Export an encoder: jaxclr export RUN --to safetensors|stablehlo --out FILE"""
    description = "Export the encoder of a run's newest checkpoint for other programs."
    options = parse(ExportOptions, arguments, "export", description=description)
    if options.image_size is not None and options.image_size < 1:
        raise UserError(f"--image-size must be at least 1, got {options.image_size}.")
    run = open_run(options.run, console, trust=options.trust)
    loaded = run.export(
        options.out, options.to, image_size=options.image_size, overwrite=options.overwrite
    )
    print_text(
        console,
        f"{options.out}: {type(loaded.config.encoder).__name__} of step {loaded.step}, "
        f"{options.to}.",
    )


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Options of `jaxclr import`."""

    out: pathlib.Path
    """Folder of the new run."""

    encoder: Annotated[Encoder, tyro.conf.arg(name="encoder")]
    """Architecture of the weights."""

    data: Data = Data()
    """Data for evaluation; the default mean and std are those of ImageNet."""

    image_size: int | None = None
    """Side in pixels to which images are resized, and learned positions interpolated; None: the
    usual size of the encoder."""

    prefix: str | None = None
    """Prefix of the encoder's names in the file; None: detected."""

    overwrite: bool = False
    """Replace an existing run in that folder."""


def import_(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Create a run from pretrained weights: jaxclr import FILE --encoder NAME --out RUN"""
    words, rest = _leading(arguments, 1)
    name = pop_option(rest, "encoder")
    help_ = asked_help(rest) is not None
    if not help_ and not words:
        raise UserError("Give a file of weights: jaxclr import FILE --encoder NAME --out RUN.")
    if not help_ and name is None:
        raise UserError(
            f"Name the encoder in {words[0]} with --encoder: {', '.join(_importable())}."
        )
    options = parse(
        ImportOptions,
        rest,
        "import FILE --encoder NAME",
        description="Create a run from the weights of an encoder, for `jaxclr evaluate`, `embed` "
        "and `export`.\n\nFILE may have the layout of torchvision, timm, DINOv2, MoCo, UniCLR, "
        "SimSiam, BYOL, VICReg, Barlow Twins, SwAV or solo-learn.",
        before={
            "FILE": "Weights: .safetensors or, with PyTorch installed, a PyTorch checkpoint.",
            "--encoder NAME": f"Architecture of the weights: {', '.join(_importable())}.",
        },
        default=ImportOptions(
            out=tyro.MISSING, encoder=named("encoder", name or "resnet50", ENCODERS)
        ),
    )
    path = expanded(words[0])
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
    print_text(
        console,
        f"{options.out}: {name} with all {len(found.arrays)} arrays at "
        f"'{found.prefix.rstrip('.')}' of {path}.",
    )
    if found.aside:
        print_text(
            console,
            "Not part of the encoder: "
            f"{', '.join(f'{part} ({count})' for part, count in found.aside.items())}.",
        )
    for note in filter(None, (weights.note, *_notes(options.encoder))):
        print_text(console, note)


def _notes(spec: Encoder) -> list[str]:
    """Assumptions about the encoder that a file cannot confirm."""
    if isinstance(spec, ViT):
        return [
            f"The file does not store the number of heads; {spec.heads} are assumed. MoCo v3's "
            "ViT-S has 12, that of timm, DeiT and DINOv2 6."
        ]
    if isinstance(spec, ResNet) and spec.stem == "cifar":
        return [
            "The file does not store the padding of the first convolution; one pixel is assumed. "
            "solo-learn pads by two for CIFAR."
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


def _run_of(words: list[str], rest: list[str], usage: str) -> Path | None:
    """The folder of a run; None for --help without one."""
    if words:
        return expanded(words[0])
    if asked_help(rest) is not None:
        return None
    raise UserError(f"Give the folder of a run: jaxclr {usage}.")
