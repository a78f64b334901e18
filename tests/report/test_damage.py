"""Reports of runs with damaged files, odd names and odd channels: what can be shown is shown."""

import html
import html.parser
import io
import json
import os
import re
import shutil
import zipfile

import numpy as np
import pytest
from tiny import tiny_config

from jaxclr.augment import Augmentation, PhotoView
from jaxclr.data import Data
from jaxclr.errors import UserError
from jaxclr.report import curves, page
from jaxclr.report.figures import Missing, drawn
from jaxclr.report.pictures import neighbors, views
from jaxclr.report.records import read_records
from jaxclr.runs import config as configs
from jaxclr.training.session import open_session
from jaxclr.training.snapshots import CHANNELS, THUMBNAIL, _thumbnails

GALLERY, QUERIES, PAIRED = 9, 6, 4
NAMES = [
    *("$5^_{x}$", "<b>&'\"</b>", "a\nb", "\x1b[31mred", os.fsdecode(b"caf\xe9"), "кот", "猫🐈"),
    *("\\frac", "[red]x[/]"),
]


def write_run(folder, classes=("a", "b", "c"), channels=1):
    """The files of a run that its report reads."""
    (folder / "snapshots").mkdir(parents=True)
    (folder / "config.json").write_text(configs.to_json(tiny_config()))
    lines = [{"step": step, "loss": 2.0 - step} for step in (0, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    figure = {"mean": 0.5, "std": 0.1}
    evaluation = {"test_images": 6, "features": {"trained": {"kNN 20": figure}}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (folder / "bad_step.json").write_text('{"step": 1}')
    rng = np.random.default_rng(0)
    rows = {"gallery": (GALLERY, 5), "queries": (QUERIES, 5)}
    rows |= {"rows": (PAIRED, 3), "columns": (PAIRED, 3)}
    for step in (0, 1):
        arrays = {name: rng.normal(size=shape).astype(np.float16) for name, shape in rows.items()}
        np.savez(folder / "snapshots" / f"{step}.npz", **arrays)
    image = lambda count: rng.integers(0, 255, (count, 4, 4, channels), np.uint8)
    images = {"gallery": image(GALLERY), "queries": image(QUERIES), "view_0": image(2)}
    np.savez(folder / "snapshots" / "images.npz", **images)
    labels = {name: np.arange(n) % len(classes) for name, n in labels_of.items()}
    np.savez(folder / "snapshots" / "labels.npz", **labels, classes=np.array(classes))
    return folder


labels_of = {"gallery_labels": GALLERY, "query_labels": QUERIES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def replace_arrays(path, **changes):
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def claim(path, name, shape):
    """Gives an array the header of another shape."""
    header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with np.load(path) as file, io.BytesIO() as other:
        np.savez(other, **{key: array for key, array in file.items() if key != name})
        path.write_bytes(other.getvalue())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", content)


nan = np.full((QUERIES, 5), np.nan, np.float16)
DAMAGES = {
    "metrics.jsonl": {
        "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
        "UTF-16": lambda path: path.write_bytes(path.read_text().encode("utf-16")),
        "a line": lambda path: path.write_text('{"loss": 1}\n' + path.read_text()),
    },
    "evaluation.json": {
        "a list": lambda path: path.write_text("[]"),
        "text": lambda path: path.write_text('{"features": {"trained": {"all": {"mean": "x"}}}}'),
        "a folder": lambda path: (path.unlink(), path.mkdir()),
    },
    "bad_step.json": {"null": lambda path: path.write_text('{"step": null}')},
    "1.npz": {
        "cut": lambda path: path.write_bytes(path.read_bytes()[:-50]),
        "lacks an array": lambda path: replace_arrays(path, rows=None),
        "NaN": lambda path: replace_arrays(path, queries=nan),
        "text": lambda path: replace_arrays(path, rows=np.full((PAIRED, 3), "x")),
        "objects": lambda path: replace_arrays(path, rows=np.full((PAIRED, 3), None)),
        "other examples": lambda path: replace_arrays(path, gallery=np.ones((8, 5), np.float16)),
        "no pairs": lambda path: replace_arrays(path, rows=np.ones((3, 3), np.float16)),
        "terabytes": lambda path: claim(path, "gallery", "(10**12, 5)".replace("10**12", "9" * 13)),
        "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    },
    "labels.npz": {
        "out of range": lambda path: replace_arrays(path, query_labels=np.arange(QUERIES)),
        "negative": lambda path: replace_arrays(path, gallery_labels=np.full(GALLERY, -2)),
        "fractions": lambda path: replace_arrays(path, query_labels=np.full(QUERIES, 0.5)),
        "too few": lambda path: replace_arrays(path, query_labels=np.zeros(2, int)),
        "no names": lambda path: replace_arrays(path, classes=np.zeros(3)),
    },
    "images.npz": {
        "cut": lambda path: path.write_bytes(path.read_bytes()[:99]),
        "floats": lambda path: replace_arrays(path, queries=np.zeros((QUERIES, 4, 4, 1))),
        "no pixels": lambda path: replace_arrays(path, view_0=np.zeros((2, 0, 4, 1), np.uint8)),
        "other channels": lambda path: replace_arrays(path, view_0=np.zeros((2, 4, 4, 3), "u1")),
    },
}


@pytest.mark.parametrize(
    "name, kind", [(name, kind) for name, kinds in DAMAGES.items() for kind in kinds]
)
def test_a_damaged_part_is_left_out_with_a_note(folder, name, kind):
    (path,) = folder.rglob(name)
    DAMAGES[name][kind](path)
    (record,) = read_records([folder])
    (note,) = record.notes
    assert str(path) in note and len(note) < 400
    assert len(record.snapshots) == (1 if name == "1.npz" else 2)
    assert (record.labels is None) == (name == "labels.npz")
    assert (record.images is None) == (name == "images.npz")


def test_a_run_of_damaged_parts_is_reported(folder):
    for name, kinds in DAMAGES.items():
        (path,) = folder.rglob(name)
        DAMAGES[name][next(iter(kinds))](path)
    (record,) = read_records([folder])
    text = page.page([record])
    assert text.count('class="warning"') == len(record.notes) == len(DAMAGES)
    assert 'id="affinity-1-0"' in text and "images.npz" in text
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match="config.json holds a list"):
        read_records([folder])


class Parsed(html.parser.HTMLParser):
    """Tags and words of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.words += data


def test_names_reach_no_formula_no_markup_and_every_encoding(tmp_path):
    folder = write_run(tmp_path / NAMES[1].replace("/", "") / NAMES[4], NAMES)
    other = write_run(tmp_path / NAMES[0])
    text = page.page(read_records([folder, other]))
    text.encode()
    parsed = Parsed(text)
    shown = [r"a\nb", r"\x1b[31mred", r"caf\xe9", *NAMES[:2], *NAMES[5:]]
    assert all(name in parsed.words for name in shown)
    assert "red" not in parsed.tags and not re.search(r"[\x00-\x08\x0b-\x1f]", text)
    assert not any(isinstance(piece, Missing) for piece in _pieces(read_records([folder])))
    # On the axes, names are cut to ten characters.
    labels = [html.unescape(label) for label in re.findall(r"<text[^>]*>([^<]*)</text>", text)]
    assert {name[:10] for name in shown} <= {*labels}


def _pieces(records):
    """The figures that show names of classes."""
    return [piece for draw in (page.confusions, page.affinities) for piece in draw(records[0])]


@pytest.mark.parametrize("channels, first", [(2, "1"), (4, "1, 2, 3"), (13, "1, 2, 3")])
def test_pictures_show_the_first_three_channels_and_say_so(tmp_path, channels, first):
    folder = write_run(tmp_path / "run", channels=channels)
    (record,) = read_records([folder])
    shown = f"Pictures show channel{'s' * (channels > 3)} {first} of {channels}."
    for piece in (*neighbors(record), *views(record)):
        assert piece.caption.endswith(shown) and "data:image/png" in piece.body
    (record,) = read_records([folder], channels=(2,) * 3)
    assert record.channels == f"Pictures show channels 2, 2, 2 of {channels}."
    assert record.images is not None and record.images.queries.shape[3] == 3
    for wrong in ((), (1, 2), (0,), (1, 2, channels + 1)):
        with pytest.raises(UserError, match=f"three channels from 1 to {channels}, got"):
            read_records([folder], channels=wrong)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 40])
def test_thumbnails_of_any_channels(channels):
    image = np.arange(60 * 48).reshape(1, 60, 48, 1) % 251
    small = _thumbnails((image + np.arange(channels)).astype(np.uint8))
    assert small.shape == (1, THUMBNAIL, 26, min(channels, CHANNELS))
    alone = [_thumbnails((image + c).astype(np.uint8)) for c in range(small.shape[3])]
    np.testing.assert_array_equal(small, np.concatenate(alone, axis=3))


def test_a_picture_that_fails_is_a_note(whole, monkeypatch):
    def fail(*_):
        raise OverflowError("too far")

    monkeypatch.setattr(curves, "line_of", fail)
    pieces = curves.curves(read_records([whole]))
    assert Missing("Loss", "could not be drawn (OverflowError: too far).") in pieces
    assert drawn("x", fail) == [Missing("x", "could not be drawn (OverflowError: too far).")]


def test_examples_without_a_label_are_shown_without_one(folder):
    some = np.array([0, 1, 2, -1, -1, -1])
    replace_arrays(folder / "snapshots" / "labels.npz", query_labels=some)
    (record,) = read_records([folder])
    assert record.labeled and not record.notes
    (errors,) = page.confusions(record)
    assert "of 3 examples" in errors.caption
    assert "no label" in "".join(piece.body for piece in page.maps(record))


@pytest.mark.parametrize("channels, said", [(5, 1), (3, 0)])
def test_changes_of_color_that_are_left_out_are_said_once(tmp_path, channels, said):
    images = np.zeros((32, 8, 8, channels), np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(32) % 2)
    config = tiny_config(
        data=Data(f"npz:{tmp_path}/images.npz"),
        augmentation=Augmentation((PhotoView(size=8), PhotoView(size=8))),
    )
    notes = [note for note in open_session(config).notes if "left out" in note]
    assert len(notes) == said and all("5 channel(s), so changes of sat" in note for note in notes)
