"""A bad setting is refused when the configuration is built, with the nearest valid name."""

import pytest

from jaxclr.data import Data, absolute, load
from jaxclr.data.source_options import at_their_place
from jaxclr.errors import UserError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(source="digitz"), "no data source named 'digitz'. Did you mean 'digits'"),
        (dict(source="tfds"), "needs 'tfds:NAME', got 'tfds'"),
        (dict(source="folder:"), "needs 'folder:PATH'"),
        (dict(source="digits:8"), "takes nothing after its name, got 'digits:8'"),
        (dict(image_size=0), "data.image_size must be at least 1 or None, got 0"),
        (dict(channels="grey"), "data.channels must be 'as_is', 'rgb' or 'gray', got 'grey'"),
        (dict(test_fraction=1.0), "data.test_fraction must be at least 0 and less than 1, got 1.0"),
        (dict(memory_limit=0.0), "data.memory_limit must be greater than 0, got 0.0"),
        (
            dict(streaming="alway"),
            "data.streaming must be 'auto', 'never' or 'always', got 'alway'",
        ),
        (dict(workers=-1), "data.workers must be at least 0 or None, got -1"),
        (dict(mean=(0.5,)), "data.mean is set without data.std"),
        (dict(std=(0.5,)), "data.std is set without data.mean"),
        (dict(mean=(0.5,), std=(0.5, 0.5)), "got 1 and 2"),
        (
            dict(mean=(128.0,), std=(0.5,)),
            r"data.mean\[0\] must be at least 0 and at most 1, got 128.0",
        ),
        (
            dict(mean=(0.5,), std=(0.0,)),
            r"data.std\[0\] must be greater than 0 and at most 1, got 0.0",
        ),
    ],
)
def test_refuses(fields, message):
    with pytest.raises(UserError, match=message):
        Data(**fields)


def test_statistics_must_fit_the_channels():
    with pytest.raises(UserError, match="have 3 numbers, but .* 'digits' have 1 channels"):
        load(Data(mean=(0.5,) * 3, std=(0.5,) * 3))


@pytest.mark.parametrize("source", ["wds:x/{0..3}.tar", "wds:x/*.tar", "hf:x", "folder:x", "npz:x"])
def test_relative_paths_are_found_from_another_folder(source, tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    places = {"source": absolute(Data(source)).source}
    assert places["source"] == source.replace(":", f":{tmp_path}/")
    monkeypatch.chdir("/")
    assert at_their_place(Data(source), places).source == places["source"]
    assert absolute(Data("hf:user/name")).source == "hf:user/name"
    elsewhere = Data(source.replace(":", ":/elsewhere/"))
    assert at_their_place(elsewhere, places) == elsewhere
    (tmp_path / "x").rmdir()
    assert at_their_place(Data(source), places).source == source
