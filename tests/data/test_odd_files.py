"""Every kind of image file, what becomes of it, and what else lies in a folder of images."""

import io
import os
import pathlib

import numpy as np
import pytest
import rich.console
from odd_files import FILES, FLAT, NO_FILES, RGB, png, saved, table
from PIL import Image
from tiny import tiny_config

import jaxclr
from jaxclr import pretraining
from jaxclr.data import Data, Stream, load
from jaxclr.data.crops import Boxes, Crop, crop_draws, take_crops
from jaxclr.data.image_folder import _encoded
from jaxclr.data.images import decode, resize_and_crop
from jaxclr.errors import UserError

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "images.md"
READABLE = [odd for odd in FILES if odd.pixels is not None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All odd files in one folder, with a FIFO, a socket and links that lead nowhere."""
    root = tmp_path_factory.mktemp("odd")
    for odd in FILES:
        odd.write(str(root / odd.name))
    for name, make, _ in NO_FILES:
        make(str(root / name))
    return root


@pytest.mark.parametrize("odd", READABLE, ids=lambda odd: odd.name)
def test_pixels(folder, odd):
    file = _encoded(str(folder / odd.name))
    pixels = decode(file, Data("folder:x", **odd.options)).pixels
    assert pixels.dtype == np.uint8 and pixels.shape == odd.pixels.shape
    np.testing.assert_allclose(pixels.astype(int), odd.pixels, atol=odd.atol)


def test_the_table_of_the_docs(tmp_path):
    """`python tests/odd_files.py` prints it."""
    assert table(tmp_path) in DOCS.read_text()


def test_a_folder_of_odd_files_is_read_or_named(folder):
    assert len(FILES) + len(NO_FILES) > 50
    source = Data(f"folder:{folder}", image_size=8, channels="rgb", test_fraction=0.0)
    with pytest.raises(UserError, match="4 files cannot be read: .*gone.png' is a link to"):
        load(source)
    dataset = load(Data(**{**vars(source), "skip_corrupt": True}))
    read = {os.path.basename(name) for name in dataset.train.names}
    left_out = {os.path.basename(name) for name in dataset.skipped}
    assert read | left_out == set(os.listdir(folder)) and not read & left_out
    refused = {odd.name for odd in FILES if odd.pixels is None or "bits" in odd.options}
    refused |= {odd.name for odd in FILES if "pages" in odd.options}
    assert left_out == refused | {name for name, _, _ in NO_FILES}
    named, composed = dataset.notes
    assert named.startswith(f"{len(left_out)} file(s) left out: ")
    for name in left_out:
        assert f"{name}' " in named
    for name, _, why in NO_FILES:
        assert f"{name}' {why}" in named
    assert composed.startswith("7 image(s) have transparent pixels, which are composed on a backgr")


def test_training_first_says_what_it_leaves_out_and_the_classes(folder, tmp_path, monkeypatch):
    root = tmp_path / "photos"
    root.mkdir()
    (root / "od\x1bd").symlink_to(folder)
    for index in range(20):
        (root / "plain").mkdir(exist_ok=True)
        saved(RGB)(str(root / "plain" / f"{index}.png"))
    data = Data(f"folder:{root}", image_size=8, channels="gray", skip_corrupt=True)
    console = rich.console.Console(file=io.StringIO(), width=10_000)

    class Begun(Exception):
        """Raised where the training would begin."""

    def begin(*_, **__):
        raise Begun

    monkeypatch.setattr(pretraining, "train_session", begin)
    with pytest.raises(Begun):
        jaxclr.train(tiny_config(data=data), tmp_path / "run", console=console)
    printed = console.file.getvalue()
    first, classes = printed.splitlines()[:2]
    assert first.startswith("SimAffinity on photos: ")
    assert classes == "2 class(es): od\\x1bd, plain"
    assert "pipe.png' is a FIFO, not an image" in printed
    assert "float.tif' has pixels of mode 'F'" in printed


def test_a_stream_reads_them_too(folder):
    data = Data(
        f"folder:{folder}", image_size=8, channels="rgb", streaming="always", skip_corrupt=True
    )
    dataset = load(data)
    assert isinstance(dataset.train, Stream) and "pipe.png' is a FIFO" in dataset.notes[0]
    assert dataset.train.count_alpha()[0] + dataset.test.count_alpha()[0] == 8  # one is opaque
    boxes = one_crop(8, (0.2, 1.0))
    for odd in READABLE:
        options = Data("folder:x", **odd.options)
        (crop,) = take_crops(_encoded(str(folder / odd.name)), boxes, 0, options)
        assert crop.shape == (8, 8, odd.pixels.shape[2])


def one_crop(size, scale):
    """The box of one crop of one image."""
    return Boxes((Crop(size, scale, (0.75, 1.33)),), crop_draws(0, 0, np.arange(1), 1))


def test_crops_of_a_turned_photo_are_those_of_the_upright_one(folder, tmp_path):
    saved(RGB)(str(tmp_path / "upright.png"))
    boxes = one_crop(8, (0.2, 0.5))
    crop = lambda path: take_crops(_encoded(str(path)), boxes, 0, Data("folder:x"))
    np.testing.assert_array_equal(crop(folder / "photo.png"), crop(tmp_path / "upright.png"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(tmp_path, orientation):
    """Turned as a viewer turns it: by the definition of the tag, in which row 0 and column 0 are
    the top and left of the scene, mirrored or swapped."""
    scene = RGB
    stored = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.swapaxes(0, 1),
        6: scene.swapaxes(0, 1)[::-1],
        7: scene[::-1, ::-1].swapaxes(0, 1),
        8: scene.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    read = load(Data(f"folder:{tmp_path}", test_fraction=0.0)).train.examples
    np.testing.assert_array_equal(read[0], scene)
    ignored = load(Data(f"folder:{tmp_path}", test_fraction=0.0, exif="ignore")).train.examples
    np.testing.assert_array_equal(ignored[0], stored)


@pytest.mark.parametrize("size", [(1, 1), (1, 2_000_000), (200_000, 1)])
@pytest.mark.parametrize("streaming", ["never", "always"])
def test_extreme_sizes_take_the_memory_of_the_target(tmp_path, size, streaming, monkeypatch):
    Image.new("RGB", size, (200, 30, 30)).save(tmp_path / "a.png")
    sizes = []
    resize = Image.Image.resize
    watched = lambda image, size, *rest, **named: (
        sizes.append(size[0] * size[1]) or resize(image, size, *rest, **named)
    )
    monkeypatch.setattr(Image.Image, "resize", watched)
    data = Data(f"folder:{tmp_path}", image_size=16, test_fraction=0.0, streaming=streaming)
    train = load(data).train
    images = train.sample(16) if streaming == "always" else train.examples
    np.testing.assert_array_equal(images, np.full((1, 16, 16, 3), (200, 30, 30)))
    (crop,) = take_crops(_encoded(str(tmp_path / "a.png")), one_crop(16, (0.2, 1.0)), 0, data)
    np.testing.assert_array_equal(crop, images[0])
    assert max(sizes, default=0) <= 16 * 16 * 8


def test_a_long_image_shows_its_center():
    ramp = np.repeat(np.arange(90, dtype=np.uint8)[None, :, None], 3, 2).repeat(2, 0)
    found = np.asarray(resize_and_crop(Image.fromarray(ramp), 2))
    np.testing.assert_array_equal(found, ramp[:, 44:46])


def test_large_files(tmp_path):
    """The limit counts decoded pixels, so that a JPEG that is decoded small is read."""
    Image.fromarray(np.tile(FLAT, (20, 20, 1))).save(tmp_path / "a.jpg", quality=95)
    png(RGB, (30_000, 30_000))(str(tmp_path / "b.png"))
    data = Data(f"folder:{tmp_path}", image_size=8, test_fraction=0.0, max_megapixels=0.01)
    with pytest.raises(UserError, match="b.png' has 30000x30000 .*--data.max-megapixels 901"):
        load(data)
    (tmp_path / "b.png").unlink()
    images = load(data).train.examples
    np.testing.assert_allclose(images[0].astype(int), FLAT[:8, :8], atol=3)
    with pytest.raises(UserError, match="a.jpg' has 480x320 pixels"):
        load(Data(f"folder:{tmp_path}", test_fraction=0.0, max_megapixels=0.01))


def test_files_and_folders_without_permission_are_named(tmp_path, monkeypatch):
    """As root reads everything, the system is made to refuse."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for index in range(3):
            saved(RGB)(str(tmp_path / name / f"{index}.png"))
    refused = {str(tmp_path / "b"), str(tmp_path / "c" / "1.png")}

    def guard(function):
        def guarded(path, *arguments):
            if str(path) in refused:
                raise PermissionError(13, "Permission denied", path)
            return function(path, *arguments)

        return guarded

    monkeypatch.setattr(os, "scandir", guard(os.scandir))
    monkeypatch.setattr("builtins.open", guard(open))
    source = f"folder:{tmp_path}"
    with pytest.raises(UserError, match="b' cannot be listed .Permission denied.. Change its perm"):
        load(Data(source))
    dataset = load(Data(source, skip_corrupt=True, test_fraction=0.0))
    assert dataset.classes == ("a", "c")
    assert dataset.skipped == (str(tmp_path / "b"), str(tmp_path / "c" / "1.png"))
    assert "1.png' cannot be read (Permission denied)" in dataset.notes[0]
    refused.add(str(tmp_path))
    with pytest.raises(UserError, match="^Folder .* cannot be listed .Permission denied"):
        load(Data(source))


@pytest.mark.parametrize("name", ["folder", "npz"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "nowhere' does not exist; give a (file|folder)"),
        ("x" * 300, "cannot be read .File name too long"),
        ("nul\0", "cannot be read .embedded null byte"),
        ("pipe", "is a FIFO; give a (file|folder)"),
        ("self", "cannot be read .Too many levels of symbolic links"),
        ("~nobody/x", "~nobody/x' does not exist; give a (file|folder)"),
    ],
)
def test_paths_that_cannot_be_read(tmp_path, name, path, message):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(UserError, match=message):
        load(Data(f"{name}:{tmp_path / path}"))


def test_links_to_folders_are_followed_and_loops_named(tmp_path):
    for index in range(3):
        for name in ("inside/a", "inside/b", "outside"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            saved(RGB)(str(tmp_path / name / f"{index}.png"))
    (tmp_path / "inside" / "a" / "linked").symlink_to(tmp_path / "outside")
    dataset = load(Data(f"folder:{tmp_path / 'inside'}", test_fraction=0.0))
    assert np.bincount(dataset.train.labels).tolist() == [6, 3]
    for name, target in (("up", ".."), ("all", "/"), ("here", ".")):
        link = tmp_path / "inside" / "b" / name
        link.symlink_to(target)
        with pytest.raises(UserError, match=f"b/{name}' is a link to a folder that contains it"):
            load(Data(f"folder:{tmp_path / 'inside'}", test_fraction=0.0))
        link.unlink()


def test_nested_files_keep_the_order_of_names(tmp_path):
    names = ("a/1.png", "a/2/0.png", "a/2/9.png", "a/3.png", "b/0.png")
    for index, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        saved(np.full_like(RGB, index))(str(tmp_path / name))
    train = load(Data(f"folder:{tmp_path}", test_fraction=0.0)).train
    assert train.examples[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_names_that_are_not_utf8(tmp_path):
    top = os.path.join(os.fsencode(tmp_path), b"top\xff")
    for name in (b"caf\xe9", "猫".encode()):
        os.makedirs(os.path.join(top, name))
        for index in range(3):
            with open(os.path.join(top, name, b"%d\xe9.png" % index), "wb") as file:
                Image.fromarray(RGB).save(file, "PNG")
    os.mkfifo(os.path.join(top, b"caf\xe9", b"pipe\xfe"))
    for streaming in ("never", "always"):
        data = Data(f"folder:{os.fsdecode(top)}", streaming=streaming, image_size=8)
        with pytest.raises(UserError, match=r"top\\xff/caf\\xe9/pipe\\xfe' is a FIFO") as caught:
            load(data)
        str(caught.value).encode()
        dataset = load(Data(**{**vars(data), "skip_corrupt": True, "test_fraction": 0.0}))
        assert dataset.classes == ("caf\\xe9", "猫") and dataset.name == "top\\xff"
        train = dataset.train
        names = [train.name(0)] if isinstance(train, Stream) else train.names
        assert os.fsencode(names[0]) == os.path.join(top, b"caf\xe9", b"0\xe9.png")
        "".join((*dataset.classes, dataset.name, *dataset.notes)).encode()


def test_several_unreadable_files_are_named_at_once(tmp_path):
    for index in range(12):
        (tmp_path / f"{index:02}.png").write_text("x")
    saved(RGB)(str(tmp_path / "000.png"))
    with pytest.raises(
        UserError, match="12 files cannot be read: .*00.png' .*07.png' .*and 4 more"
    ):
        load(Data(f"folder:{tmp_path}", test_fraction=0.0))
