"""An index is made once, and again if its file, its kind or the index itself changed."""

import os

import numpy as np
import pytest

from jaxclr.data import index_cache


@pytest.mark.parametrize("writable", [True, False])
def test_an_index_is_made_when_it_has_to_be(tmp_path, monkeypatch, writable):
    monkeypatch.setenv("JAXCLR_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    paths = [folder / f"{name}.tar" for name in "ab"]
    for path in paths:
        path.write_text(path.name)
    if not writable:  # of a root user, too
        original = index_cache._write

        def refused(place, content):
            if place.parent == folder:
                raise PermissionError
            original(place, content)

        monkeypatch.setattr(index_cache, "_write", refused)
    made = []

    def make(path):
        made.append(path.name)
        return {"size": np.array([len(path.read_bytes())])}

    def sizes(kind="one"):
        made.clear()
        return [int(one["size"][0]) for one in index_cache.indexes(paths, make, kind=kind)]

    assert sizes() == [5, 5] and sorted(made) == ["a.tar", "b.tar"]
    assert sizes() == [5, 5] and not made
    paths[1].write_text("longer")
    assert sizes() == [5, 6] and made == ["b.tar"]
    os.utime(paths[0], (1, 1))
    assert sizes() == [5, 6] and made == ["a.tar"]
    assert sizes("two") == [5, 6] and len(made) == 2
    hidden = sorted(folder.glob(".*"))
    stored = hidden if writable else sorted((tmp_path / "cache" / "indexes").iterdir())
    assert len(stored) == 2 and bool(hidden) == writable
    stored[0].write_bytes(stored[0].read_bytes()[:100])
    assert sizes("two") == [5, 6] and len(made) == 1

    def full(place, content):
        raise OSError("no space left")

    monkeypatch.setattr(index_cache, "_write", full)
    paths[0].write_text("c")
    assert sizes("two") == [1, 6]
    with pytest.raises(FileNotFoundError):
        index_cache.indexes([folder / "c.tar"], make, kind="one")
