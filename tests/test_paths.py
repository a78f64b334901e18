"""Paths as users give them."""

import pathlib
import subprocess
import sys

import pytest

from jaxclr import cli, paths
from jaxclr.errors import UserError


def test_local_paths_stay(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert paths.expanded("~/run") == pathlib.Path("/home/someone/run")
    for text in ("gs", "a/gs:/b", "gs:", "/s3:/b"):
        assert paths.expanded(text) == pathlib.Path(text)
        assert not paths.in_bucket(text)


@pytest.mark.parametrize("url", ["gs://abc", "s3://abc/run"])
def test_urls_keep_their_slashes(url):
    for given in (url, pathlib.Path(url)):
        assert str(paths.expanded(given)) == url
    assert str(paths.expanded(url) / "a.json") == f"{url}/a.json"
    assert paths.in_bucket(paths.expanded(url))


@pytest.mark.parametrize(
    "url, said", [("https://abc/run", "https:// is not supported"), ("gs://", "not name a bucket")]
)
def test_other_urls_are_refused(url, said):
    with pytest.raises(UserError, match=said):
        paths.expanded(url)


@pytest.mark.parametrize(
    "url, module, extra", [("gs://a", "gcsfs", "gcs"), ("s3://a", "s3fs", "s3")]
)
def test_the_extra_is_named(url, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"pip install 'jaxclr\[{extra}\]'"):
        paths.expanded(url)


def test_the_clients_are_imported_for_urls_only():
    code = "import sys, jaxclr.paths; jaxclr.paths.expanded('x'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"etils", "fsspec"} & set(done.stdout.split())


def test_both_servers_store_and_list(bucket):
    folder = paths.expanded(bucket)
    (folder / "a" / "b").write_text("1")
    (folder / "a" / "b").write_text("2")
    assert (folder / "a" / "b").read_text() == "2"
    assert [path.name for path in folder.iterdir()] == ["a"]


@pytest.mark.parametrize("command", ["evaluate", "resume", "report"])
def test_a_bad_url_is_one_sentence_on_the_command_line(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "ftp://abc/run"])
    assert ended.value.code == 2
    said = "error: ftp://abc/run: ftp:// is not supported; give a local path, or one of gs:// or"
    assert " ".join(capsys.readouterr().err.split()).startswith(said)
