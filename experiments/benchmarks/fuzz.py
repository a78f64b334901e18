"""Fuzzing: damaged and hostile run folders, and command lines that make no sense.

    python experiments/benchmarks/fuzz.py [--folders 2000] [--commands 1000] [--seed 0]
        [--processes 3] [--out FILE.json]

A case is made by its seed alone, so that a seed in the output repeats it (`--folders 1 --seed N`).
A folder is the run of a small network with one to three damages: bytes of any file, values in JSON
and JSON lines, arrays of snapshots, files in the place of folders, pipes, devices and links in the
place of files. It is reported (of 40% the pictures are drawn), its metrics and configuration are
read, its encoder is loaded, and it is resumed up to the first step. A command is one of the command
line's with odd options and values; its training and its evaluation are left out. Both run in this
process, each within 20 seconds and 4 GiB, and a few folders through the command line in processes
of their own.

A user's mistake or a damaged file is one sentence (`UserError`, or exit status 2). All else is
counted: tracebacks, hangs, and files changed outside the run.
"""

import contextlib
import dataclasses
import faulthandler
import hashlib
import io
import json
import logging
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import rich.console
import rich.table
import tyro
from measure import Output, machine, resident_mib, verdict

import jaxclr
from jaxclr import cli
from jaxclr.augment import AUGMENTATIONS
from jaxclr.data import Data
from jaxclr.data.identity import identity
from jaxclr.encoders import Mlp, SmallConv
from jaxclr.errors import UserError
from jaxclr.methods import METHODS
from jaxclr.pretraining import check_data
from jaxclr.report.page import page
from jaxclr.report.records import read_records
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.folder import RunFolder
from jaxclr.runs.logs import Logs
from jaxclr.training.session import Session, open_session

ROOT = pathlib.Path(__file__).parents[2]
LIMIT = 20  # seconds
PAGES = 0.4  # share of the reports that are drawn
MEMORY = 4 * 2**30  # bytes of address space for a case

NAMES = ["run", "$5^_{", "caf\udce9", "<b>&'\"", "a\nb", "[red]x[/]", "lr=[0.1]", "кот", "🐈 猫"]
TEXTS = ["", "$x$", "\x1b[31m", "<script>", "\udce9", "\ud800", "\0", "x" * 100_000, "/dev/zero"]
VALUES: list[Any] = [
    *(None, True, [], {}, [[]], "5", -1, 0, 1, 0.5, -0.5, 3, 10**9, 10**18, 10**30, 10**400),
    *(1e308, float("nan"), float("inf"), [1], [1e9, 2], {"type": "ViT"}, {"session": "x"}),
    *({"function": "os:system"}, {"type": "jaxclr.api:os.system"}, {"type": "parts/x.py:X"}),
    *TEXTS,
]


class LeftOut(BaseException):
    """Raised in place of slow work that the fuzzer does not test, such as training."""


class Hang(BaseException):
    """A case that took more than `LIMIT` seconds."""


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Damaged run folders and odd command lines."""

    folders: int = 2000
    """Damaged run folders."""

    commands: int = 1000
    """Command lines."""

    processes: int = 3
    """Damaged run folders that the command line reports and exports in processes of its own."""

    seed: int = 0
    """The first seed; the others follow it."""


class Base:
    """A run that is whole, and the files beside it that nothing may change.

    Args:
      root: an empty folder.
    """

    def __init__(self, root: pathlib.Path):
        self.root, self.run, self.place = root, root / "base", root / "place"
        self.session = make_run(self.run)
        self.config = self.session.config
        (self.place / "outside").mkdir(parents=True)
        (self.place / "outside" / "file.txt").write_text("never changed\n")
        self.pages: set[str] = set()

    def outside(self, inside: pathlib.Path) -> dict[str, Any]:
        """All files but those of one folder, with their contents."""
        paths = [path for path in self.place.rglob("*") if inside not in (path, *path.parents)]
        return {
            ascii(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            for path in paths
        }


def make_run(folder: pathlib.Path) -> Session:
    """A run on digits with one checkpoint, metrics, snapshots of a few images, an evaluation."""
    config = jaxclr.Config(
        method=METHODS["sim_trace_plain"]().replace(projector=Mlp(layers=2, hidden=12, out=8)),
        encoder=SmallConv(widths=(4, 8)),
        data=Data("digits", mean=(0.3,), std=(0.4,)),
        augmentation=AUGMENTATIONS["digits"],
        epochs=2,
        batch_size=16,
        warmup_epochs=0.0,
    )
    run, session = RunFolder(folder), open_session(config)
    data = identity(session.dataset, session.config.data)
    run.create(session.config, overwrite=False, data=data)
    with Checkpoints(run.checkpoints) as checkpoints:
        checkpoints.save(session.init_state(), 3)
    lines = [{"step": step, "loss": 3.0 - step, "spectrum": [2.0, 1.0]} for step in (1, 2, 3)]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    probe = {"mean": 0.5, "std": 0.1, "accuracies": [0.4, 0.6], "alpha": 1.0}
    run.write_evaluation({"step": 3, "train_images": 9, "features": {"trained": {"all": probe}}})
    figures = {"accuracy": {"mean": 0.5, "std": 0.0, "values": [0.5]}}
    run.write_protocol("knn", {"step": 3, "percent": True, "figures": figures})
    run.write_bad_step({"step": 2, "images": [1, 2]})
    run.snapshots.mkdir()
    rng = np.random.default_rng(0)
    rows = {"gallery": (9, 5), "queries": (6, 5), "rows": (4, 3), "columns": (4, 3)}
    for step in (0, 3):
        arrays = {name: rng.normal(size=shape).astype(np.float16) for name, shape in rows.items()}
        np.savez(run.snapshots / f"{step}.npz", **arrays)
    labels = {"gallery_labels": np.arange(9) % 3, "query_labels": np.arange(6) % 3}
    np.savez(run.snapshots / "labels.npz", **labels, classes=np.array(["$5", "<b>", "кот"]))
    image = lambda count: rng.integers(0, 255, (count, 4, 4, 1), np.uint8)
    images = {"gallery": image(9), "queries": image(6), "view_0": image(2), "view_1": image(2)}
    np.savez(run.snapshots / "images.npz", **images)
    return session


def damage(folder: pathlib.Path, rng: random.Random, outside: pathlib.Path) -> str:
    """Damages a run, and names what was done."""
    whole = lambda path: path.is_file() and not path.is_symlink() and path.stat().st_size < 2**20
    files = sorted(filter(whole, folder.rglob("*")))
    few = [path for path in files if "checkpoints" not in path.parts]
    path = rng.choice(few if few and rng.random() < 0.7 else files or [folder / "config.json"])
    kinds: list[Callable[[pathlib.Path, random.Random], str]] = [damage_bytes]
    if path.suffix in (".json", ".jsonl"):
        kinds += [damage_json] * 4
    if path.suffix == ".npz":
        kinds += [damage_arrays] * 4
    kinds += [lambda path, rng: replace_path(path, rng, outside)]
    done = rng.choice(kinds)(path, rng)
    return f"{path.relative_to(folder)}: {done}"


def damage_bytes(path: pathlib.Path, rng: random.Random) -> str:
    """Changes the bytes of a file."""
    data = path.read_bytes() if path.is_file() else b""
    place = rng.randrange(len(data) + 1)
    changed = {
        "cut": data[:place],
        "emptied": b"",
        "zeros": bytes(len(data)),
        "noise": rng.randbytes(len(data)),
        "a byte": data[:place] + rng.randbytes(1) + data[place + 1 :],
        "inserted": data[:place] + rng.randbytes(9) + data[place:],
        "twice": data * 2,
        "UTF-16": data.decode("latin-1").encode("utf-16"),
        "no UTF-8": data[:place] + b"\xff\xfe" + data[place:],
        "null": b"null\n",
        "deep": b"[" * 100_000,
        "deep and closed": b'{"a":' * 800 + b"1" + b"}" * 800,
        "digits": b'{"step": ' + b"9" * 5000 + b"}\n",
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    }
    kind = rng.choice(sorted(changed))
    if path.is_file():
        path.write_bytes(changed[kind])
    return kind


def damage_json(path: pathlib.Path, rng: random.Random) -> str:
    """Changes one value in a JSON file, or in a line of JSON lines."""
    try:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        index = rng.randrange(len(lines))
        tree = {"": json.loads(lines[index])}
    except (ValueError, OSError):
        return damage_bytes(path, rng)
    node, key = rng.choice([*_places(tree)])
    value = rng.choice(VALUES)
    if rng.random() < 0.15 and key != "":
        del node[key]
        done = f"without {key}"
    elif rng.random() < 0.1 and isinstance(node, dict) and key != "":
        node[rng.choice([text for text in TEXTS if len(text) < 99])] = value
        done = "a field added"
    else:
        node[key] = value
        done = f"{key} is {ascii(value)[:40]}"
    lines[index] = json.dumps(tree[""])
    path.write_text("\n".join(lines) + "\n")
    return done


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """All pairs of a list or object and an index of it."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def damage_arrays(path: pathlib.Path, rng: random.Random) -> str:
    """Changes an array of an .npz file."""
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except Exception:  # it was damaged before
        return damage_bytes(path, rng)
    if not arrays:
        return damage_bytes(path, rng)
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    flat = array.reshape(-1).copy()
    if len(flat) and array.dtype.kind in "fiu":
        flat[rng.randrange(len(flat))] = np.nan if array.dtype.kind == "f" else 77
    changed = {
        "missing": None,
        "a value": flat.reshape(array.shape),
        "flat": array.reshape(-1),
        "a number": np.asarray(1),
        "no rows": array[:0],
        "one row": array[:1],
        "more rows": np.concatenate([array] * 3),
        "many rows": np.repeat(array[:1], 3000, axis=0),
        "turned": array.T,
        "deeper": array[..., None],
        "negative": -np.ones(array.shape, np.int64),
        "huge numbers": np.full(array.shape, 2**62),
        "infinite": np.full(array.shape, np.inf, np.float16),
        "large": np.full(array.shape, 1e300),
        "text": np.full(array.shape, "\ud800"),
        "odd names": np.array(NAMES[: len(array)] if array.ndim else NAMES),
        "complex": array.astype(complex) if array.dtype.kind in "fiu" else array,
        "structured": np.zeros(len(array) if array.ndim else 1, [("a", int)]),
        "dates": np.zeros(array.shape, "datetime64[s]"),
        "objects": np.full(array.shape, None, object),
    }
    kind = rng.choice([*sorted(changed), "terabytes"])
    if kind == "terabytes":
        shape = f"({10 ** rng.randrange(6, 25)}, 4)"
        header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}"
        header = header.ljust(117) + "\n"
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        with zipfile.ZipFile(path, "w") as archive:
            for other, kept in arrays.items():
                buffer = io.BytesIO()
                np.save(buffer, kept)
                archive.writestr(f"{other}.npy", content if other == name else buffer.getvalue())
    else:
        arrays[name] = changed[kind]
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return f"{name} is {kind}"


def replace_path(path: pathlib.Path, rng: random.Random, outside: pathlib.Path) -> str:
    """Puts something else in the place of a file or of its folder."""
    if path.parent.name in ("snapshots", "checkpoints", "3") and rng.random() < 0.3:
        path = path.parent
    kind = rng.choice(
        ["nothing", "pipe", "folder", "loop", "device", "link", "dangling", "sparse", "socket"]
    )
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(2**42)
    elif kind == "socket":
        os.mknod(path, 0o600 | 0o140000)
    elif kind != "nothing":
        targets = {"loop": path, "device": "/dev/zero", "link": outside, "dangling": "nowhere"}
        path.symlink_to(targets[kind])
    return f"{path.name} is {kind}"


def read_folder(
    folder: pathlib.Path, base: Base, *, arrays: bool, pictures: bool
) -> Iterator[Callable[[], Any]]:
    """What is done with a damaged run, in parts of which each may be refused.

    Args:
      folder: of the run.
      base: the whole run.
      arrays: read the checkpoint too.
      pictures: draw the report of what is read.
    """
    run = RunFolder(folder)
    state: dict[str, Any] = {}

    def report() -> None:
        records = read_records([folder])
        key = repr([record._replace(name="") for record in records]).replace(str(folder), "")
        if pictures and key not in base.pages:  # what is equal is drawn once
            base.pages.add(key)
            text = page(records)
            text.encode()
            if failed := re.findall("could not be drawn[^<]*", text):
                raise AssertionError(failed)
            run.report.unlink(missing_ok=True)
            run.report.write_text(text)

    def config() -> None:
        state["config"] = run.config()
        if state["config"] != base.config:
            open_session(state["config"])

    def resume() -> None:
        if state.get("config") != base.config:
            return
        with run.locked():
            run.finished(3, evaluated=True)
            check_data(run, base.session)
            with Checkpoints(run.checkpoints) as checkpoints:
                checkpoints.restore(base.session.state_shape(), say=lambda _: None)
            with Logs(run, start=2, steps=3, console=rich.console.Console(file=io.StringIO())):
                pass

    yield report
    yield lambda: jaxclr.Run(folder).metrics()
    yield config
    if arrays:
        yield lambda: jaxclr.load(folder)
        yield resume
    yield lambda: run.write_protocol("knn", {"step": 3, "percent": True, "figures": {}})


def fuzz_folder(seed: int, base: Base) -> tuple[str, Counter[str], list[dict[str, Any]]]:
    """Damages a run by a seed and reads it.

    Returns:
      What was done, how many of its parts were read or refused, and the faults.
    """
    rng = random.Random(seed)
    folder = base.place / rng.choice(NAMES)
    shutil.copytree(base.run, folder)
    outside = base.place / "outside" / "file.txt"
    done = "; ".join(damage(folder, rng, outside) for _ in range(rng.choice([1, 1, 2, 3])))
    before = base.outside(folder)
    counts: Counter[str] = Counter()
    faults, printed = [], io.StringIO()
    try:
        arrays = "checkpoints" in done or "config.json" in done or rng.random() < 0.1
        for part in read_folder(folder, base, arrays=arrays, pictures=rng.random() < PAGES):
            with contextlib.redirect_stderr(printed):
                kind, fault = attempt(part)
            counts[kind] += 1
            faults += fault
        if "Traceback" in printed.getvalue():  # of a thread
            faults.append({"kind": "traceback", "text": printed.getvalue()[-2000:]})
        if base.outside(folder) != before:
            faults.append({"kind": "changed outside"})
    finally:
        shutil.rmtree(folder)
    return done, counts, faults


def attempt(call: Callable[[], Any]) -> tuple[str, list[dict[str, Any]]]:
    """Calls within the limit: "read" or "refused", and the faults."""
    try:
        with watched(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except UserError as error:
        lines = len(str(error).splitlines())
        long = lines > 3 or len(str(error)) > 3000
        return "refused", [{"kind": "long sentence", "text": str(error)[:300]}] if long else []
    except LeftOut:
        return "read", []
    except Hang:
        return "fault", [{"kind": "hang", "text": traceback.format_exc()[-2000:]}]
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "fault", [{"kind": "traceback", "text": traceback.format_exc()[-2000:]}]
    return "read", []


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Raises `Hang` after the limit; if even that is impossible, says where it hangs and exits."""

    def ring(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LIMIT)
    faulthandler.dump_traceback_later(3 * LIMIT, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


# Options of each command, with values that they take.
OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        **{
            "--epochs": ("1", "3"),
            "--batch-size": ("16", "64"),
            "--seed": ("5",),
            "--views": ("2",),
        },
        **{"--optimizer": ("sgd", "adamw"), "--encoder": ("small_conv",), "--keep": ("1",)},
        **{"--method": ("simclr", "byol", "sup_con"), "--augmentation": ("digits", "cifar")},
        **{"--data.source": ("digits", "npz:images.npz"), "--data.image-size": ("8",)},
        **{"--data.channels": ("gray", "rgb", "as_is"), "--clip-norm": ("1.0", "None")},
        **{"--encoder.widths": ("4 8",), "--method.projector.hidden": ("16",), "--out": ("run",)},
        **{"--warmup-epochs": ("0", "0.5"), "--profile": ("0:2",), "--micro-batches": ("1", "2")},
        **{"--overwrite": ("",), "--mapper": ("pmap",), "--optimizer.learning-rate": ("0.1",)},
    },
    "resume": {"--trust": ("",)},
    "evaluate": {
        **{"--protocol": ("knn --k 5", "linear --seeds 2", "fewshot", "arc", "semi", "clusters")},
        **{"--data.source": ("npz:images.npz",), "--no-baselines": ("",), "--json": ("",)},
    },
    "report": {"--out": ("made.html",), "--report-channels": ("1", "1 2 3")},
    "embed": {
        **{"--out": ("out.npz", "out.parquet"), "--dtype": ("float16",), "--overwrite": ("",)},
        "--data.source": ("npz:images.npz", "digits"),
    },
    "export": {
        **{"--out": ("out",), "--to": ("safetensors", "stablehlo"), "--image-size": ("8",)},
        "--overwrite": ("",),
    },
    "import": {
        **{"--encoder": ("resnet18", "vit_small"), "--out": ("made",), "--image-size": ("32",)},
        **{"--prefix": ("model",), "--encoder.patch": ("16",), "--data.mean": ("0.5 0.5 0.5",)},
    },
    "list": {},
}
NEEDED = {
    **{"embed": ["--out", "out.npz"], "export": ["--out", "out", "--to", "safetensors"]},
    "import": ["--encoder", "resnet18", "--out", "made"],
}
SECOND = {"train": "digits.py", "import": "weights.safetensors", "list": "methods"}
ARGUMENTS = [
    *("", "-1", "0", "1", "2", "3", "1.5", "1e400", "nan", "9" * 5000, "None", "True", "--", "-"),
    *("caf\udce9", "$x^2", "\x1b[31m", "[/red]", ":cat:", "a\nb", "{", "é", "🦊", "x" * 300),
    *(
        "run",
        "nothing",
        "pipe",
        "weights.pth",
        "digits.py",
        "/dev/zero",
        "/proc/version",
        "..",
        ".",
    ),
    *("digits", "npz:", "npz:pipe", "npz:images.npz", "folder:", "folder:run", "folder:pipe"),
    *("npz:/dev/zero", "nope:x", "folder:\udce9", "tfds:", "out.npz", "out.parquet", "safetensors"),
    *("sgd", "resnet18", "sim_affinity", "1000000000", "4 8", "0:2", "cifar", "--help", "all"),
    *(str(2**31), str(2**63), "1e300", "-0.0", "0x10", "1_000", "１"),
]


def command_line(rng: random.Random) -> list[str]:
    """A command with options, of which some values, and some options, are odd."""
    command = rng.choice([*OPTIONS, *OPTIONS, "train", "train", "trian"])
    known, words = OPTIONS.get(command, {}), [command]
    if rng.random() < 0.95:
        second = SECOND.get(command, "run")
        words.append(second if rng.random() < 0.85 else rng.choice(ARGUMENTS))
    words += NEEDED.get(command, []) if rng.random() < 0.9 else []
    odd = rng.choice([0, 0, 1, 2])
    for index in range(rng.choice([0, 1, 2, 3])):
        strange = not known or rng.random() < 0.05
        option = rng.choice(["--nope", "--data.nope", "-x", "--out="] if strange else [*known])
        plausible = rng.choice(known.get(option, ("",))).split()
        words += [option, *(plausible if index >= odd else [rng.choice(ARGUMENTS)])]
    return words


def fuzz_command(seed: int, base: Base) -> tuple[str, Counter[str], list[dict[str, Any]]]:
    """Runs a command line by a seed; likewise."""
    words = command_line(random.Random(seed))
    work = base.place / "work"
    work.mkdir()
    shutil.copytree(base.run, work / "run")
    for name in ("digits.py", "recipes.py"):
        shutil.copy(ROOT / "experiments" / name, work)
    for name, content in {"weights.safetensors": b"\x08" + bytes(15), "weights.pth": b"x"}.items():
        (work / name).write_bytes(content)
    np.savez(
        work / "images.npz", images=np.zeros((20, 8, 8, 5), np.uint8), labels=np.arange(20) % 2
    )
    os.mkfifo(work / "pipe")
    before, here = base.outside(work), pathlib.Path.cwd()
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")

    def run() -> None:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                cli.main(words)
            except SystemExit as end:
                if end.code == 2:
                    raise UserError("exit status 2") from end
                if end.code not in (None, 0):
                    raise AssertionError(f"exit status {end.code}") from end

    try:
        os.chdir(work)
        with left_out():
            kind, faults = attempt(run)
        if base.outside(work) != before:
            faults.append({"kind": "changed outside"})
    finally:
        os.chdir(here)
        shutil.rmtree(work)
    out.flush()
    if "Traceback" in out.buffer.getvalue().decode():
        faults.append({"kind": "traceback", "text": out.buffer.getvalue().decode()[-2000:]})
    return ascii(words)[:300], Counter({kind: 1}), faults


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Leaves out training and evaluation."""

    def refuse(*_: Any, **__: Any) -> None:
        raise LeftOut

    with contextlib.ExitStack() as stack:
        for name in ("pretraining.train_session", "pretraining.closing_record", "api.evaluate"):
            stack.enter_context(mock.patch(f"jaxclr.{name}", refuse))
        yield


def fuzz_process(seed: int, base: Base) -> tuple[str, Counter[str], list[dict[str, Any]]]:
    """Reports and loads a damaged run by the command line in processes; likewise."""
    rng = random.Random(seed)
    folder = base.place / "run"
    shutil.copytree(base.run, folder)
    outside = base.place / "outside" / "file.txt"
    done, counts, faults = damage(folder, rng, outside), Counter(), []
    try:
        for words in (["report", folder], ["export", folder, "--to", "stablehlo", "--out", "x"]):
            command = [sys.executable, "-m", "jaxclr", *map(str, words)]
            ended = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, text=True)
            counts["read" if ended.returncode == 0 else "refused"] += 1
            if ended.returncode not in (0, 2) or "Traceback" in ended.stderr:
                faults.append({"kind": "traceback", "text": ended.stderr[-2000:]})
    finally:
        shutil.rmtree(folder)
    return done, counts, faults


Case = Callable[[int, Base], tuple[str, Counter[str], list[dict[str, Any]]]]


def fuzz(case: Case, seeds: Sequence[int], base: Base) -> dict[str, Any]:
    """All cases of a kind: their number, seconds, what was read and refused, and the faults."""
    counts: Counter[str] = Counter()
    faults, slowest, start = [], 0.0, time.perf_counter()
    for seed in seeds:
        begun = time.perf_counter()
        done, counted, found = case(seed, base)
        slowest = max(slowest, time.perf_counter() - begun)
        counts += counted
        for fault in found:
            faults.append({"seed": seed, "case": done, **fault})
            print(f"{case.__name__} {seed}: {done}\n{fault}", file=sys.stderr, flush=True)
    return {
        "cases": len(seeds),
        "seeds": [seeds[0], seeds[-1]] if seeds else [],
        "seconds": round(time.perf_counter() - start, 1),
        "slowest": round(slowest, 1),
        "read": counts["read"],
        "refused": counts["refused"],
        "faults": faults,
    }


def measure(options: Options, root: pathlib.Path) -> dict[str, Any]:
    """The record of all cases."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # as the command line does
    base = Base(root)
    seeds = lambda count: range(options.seed, options.seed + count)
    with bounded_memory():
        results = {
            "folders": fuzz(fuzz_folder, seeds(options.folders), base),
            "commands": fuzz(fuzz_command, seeds(options.commands), base),
        }
    results["processes"] = fuzz(fuzz_process, seeds(options.processes), base)
    return {"machine": machine(), "results": results}


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Limits the address space of this process to what it has and `MEMORY`."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(resident_mib("VmSize")) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def table(record: dict[str, Any]) -> rich.table.Table:
    """The cases of each kind, and their faults against the bar of none."""
    results = record["results"]
    shown = rich.table.Table("", *results, title="Fuzzing", title_justify="left")
    for name in ("cases", "seeds", "seconds", "slowest", "read", "refused"):
        shown.add_row(name, *(str(result[name]) for result in results.values()))
    for kind in ("traceback", "hang", "changed outside", "long sentence"):
        counts = [
            sum(fault["kind"] == kind for fault in result["faults"]) for result in results.values()
        ]
        shown.add_row(kind, *(f"{count}, {verdict(count, most=0)}" for count in counts))
    return shown


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAXCLR_CACHE"] = str(pathlib.Path(folder) / "cache")
        record = measure(options, pathlib.Path(folder).resolve())
    options.tell(record, [table(record)])
    if any(result["faults"] for result in record["results"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main(tyro.cli(Options))
