"""Contents of the folder of a run, read without the run's data, network or devices."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from jaxclr.errors import UserError
from jaxclr.paths import Path, resolved
from jaxclr.runs import readers, snapshots
from jaxclr.runs.folder import RunFolder
from jaxclr.runs.readers import BadStep, Description, Evaluation
from jaxclr.runs.snapshots import Images, Labels, Snapshot
from jaxclr.text import displayable

T = TypeVar("T")


class Record(NamedTuple):
    """A run as stored in its folder; missing and damaged files are empty here.

    Attributes:
      number: of the run in the report, from 1: the color and the dashes of its lines.
      name: of the folder, with its parents' if others have the same.
      config: config.json.
      lines: those of metrics.jsonl.
      evaluation: evaluation.json.
      labels: of the examples of the snapshots; None without.
      images: of these examples, in one or three channels; None if they are not images.
      channels: a sentence on the channels that pictures show; "" if they show all.
      snapshots: snapshots/STEP.npz by step.
      bad_step: bad_step.json.
      notes: sentences on damaged files that are left out.
    """

    number: int
    name: str
    config: Description
    lines: Sequence[Mapping[str, Any]]
    evaluation: Evaluation
    labels: Labels | None
    images: Images | None
    channels: str
    snapshots: Mapping[int, Snapshot]
    bad_step: BadStep | None
    notes: Sequence[str] = ()

    @property
    def method(self) -> str:
        return self.config.method

    @property
    def last_step(self) -> int:
        return max((line["step"] for line in self.lines), default=0)

    @property
    def labeled(self) -> bool:
        """Whether some examples of the gallery and some queries have labels."""
        return self.labels is not None and all((y >= 0).any() for y in self.labels[:2])

    @property
    def end(self) -> Snapshot | None:
        """The newest snapshot."""
        return self.snapshots[max(self.snapshots)] if self.snapshots else None

    def series(self, name: str) -> tuple[list[int], list[Any]]:
        """Steps and values of a name in metrics.jsonl."""
        found = {line["step"]: line[name] for line in self.lines if name in line}
        return list(found), list(found.values())

    def last(self, name: str) -> Any:
        """The last value of a name; None without one."""
        values = self.series(name)[1]
        return values[-1] if values else None


def read_records(folders: Sequence[Path], channels: Sequence[int] | None = None) -> list[Record]:
    """The runs in these folders.

    Args:
      folders: of the runs.
      channels: one or three channels of images that pictures show, counted from 1; None: the first
        three, or the first of one or two.

    Raises:
      UserError: a folder is not a run, its config.json cannot be read, or images do not have these
        channels.
    """
    names = _names(folders)
    return [
        _read(RunFolder(folder), name, number, channels)
        for number, (folder, name) in enumerate(zip(folders, names, strict=True), 1)
    ]


def _read(run: RunFolder, name: str, number: int, channels: Sequence[int] | None) -> Record:
    config = run.description()
    notes: list[str] = []

    def optional(read: Callable[[Path], T], path: Path, default: T) -> T:
        """What a reader makes of a file; the default if it is missing or, with a note, damaged."""
        try:
            return read(path) if readers.is_there(path) else default
        except UserError as error:
            notes.append(f"{error} It is left out.")
            return default

    metrics = optional(readers.read_metrics, run.metrics, readers.Metrics([]))
    notes += filter(None, [metrics.note])
    taken: dict[int, Snapshot] = {}
    for step in optional(snapshots.snapshot_steps, run.snapshots, []):
        like = next(iter(taken.values()), None)
        read = functools.partial(snapshots.read_snapshot, like=like)
        if snapshot := optional(read, run.snapshots / f"{step}.npz", None):
            taken[step] = snapshot
    labels, images, shown = None, None, ""
    if taken:
        like = next(iter(taken.values()))
        with_labels, with_images = (run.snapshots / f"{name}.npz" for name in ("labels", "images"))
        images = optional(functools.partial(snapshots.read_images, like=like), with_images, None)
        if images:
            images, shown = _in_channels(images, channels)
        if not readers.is_there(with_labels):
            with_labels = with_images  # as early runs have it
        labels = optional(functools.partial(snapshots.read_labels, like=like), with_labels, None)
    return Record(
        number=number,
        name=name,
        config=config,
        lines=metrics.lines,
        evaluation=optional(readers.read_evaluation, run.evaluation, Evaluation()),
        labels=labels,
        images=images,
        channels=shown,
        snapshots=taken,
        bad_step=optional(readers.read_bad_step, run.bad_step, None),
        notes=notes,
    )


def _in_channels(images: Images, channels: Sequence[int] | None) -> tuple[Images, str]:
    """The images in these channels, and a sentence on them; "" if these are all."""
    count = images.queries.shape[3]
    if channels is None:
        channels = range(1, 4) if count >= 3 else (1,)
    if len(channels) not in (1, 3) or not all(1 <= channel <= count for channel in channels):
        raise UserError(
            f"--report-channels must be one or three channels from 1 to {count}, got "
            f"{' '.join(map(str, channels))}."
        )
    pick = lambda array: array[..., [channel - 1 for channel in channels]]
    shown = Images(pick(images.gallery), pick(images.queries), tuple(map(pick, images.views)))
    if [*channels] == [*range(1, count + 1)]:
        return shown, ""
    said = f"channel{'s' * (len(channels) > 1)} {', '.join(map(str, channels))}"
    return shown, f"Pictures show {said} of {count}."


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with their parents' where two are alike."""
    short = [resolved(folder).name for folder in folders]
    return [
        displayable(name if short.count(name) == 1 else str(folder))
        for name, folder in zip(short, folders, strict=True)
    ]
