"""The wheel: with JAX alone the losses work, and errors name the extra that is missing."""

import importlib.util
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# What `pip install jax` brings.
JAX = ("jax", "jaxlib", "numpy", "numpy.libs", "scipy", "scipy.libs", "ml_dtypes", "opt_einsum")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder with the package as it is distributed, and JAX with what it requires."""
    site = tmp_path_factory.mktemp("site")
    installed = pathlib.Path(importlib.util.find_spec("jax").origin).parents[1]
    for name in JAX:
        if (installed / name).exists():
            (site / name).symlink_to(installed / name)
    for metadata in (*installed.glob("jax-*.dist-info"), *installed.glob("jaxlib-*.dist-info")):
        (site / metadata.name).symlink_to(metadata)
    wheels = tmp_path_factory.mktemp("wheels")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(wheels),
        str(ROOT),
    ]
    subprocess.run(build, check=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(site, *arguments):
    """A program that sees these packages and the standard library alone."""
    code = "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]; "
    code += f"sys.path.append({str(site)!r}); "
    words = [sys.executable, "-I", "-S", "-c", code + arguments[0], *arguments[1:]]
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=site)


def test_the_losses_need_jax_alone(alone):
    done = run(
        alone,
        "import jax, jaxclr; z = jax.random.normal(jax.random.key(0), (2, 8, 4)); "
        "print(float(jaxclr.losses.sim_affinity(*z, temperature=0.5)), jaxclr.__version__)",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "0.2.0" and 1 < float(done.stdout.split()[0]) < 4


MISSING = """
import jaxclr

for name in ("Config", "train", "methods", "encoders", "data", "Run"):
    try:
        getattr(jaxclr, name)
    except jaxclr.UserError as error:
        print(name, error)
"""


def test_a_missing_extra_is_named(alone):
    done = run(alone, MISSING)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 6, said
    for line in said:
        assert "which is not installed: pip install 'jaxclr[train]'." in line


def test_the_command_names_a_missing_extra(alone):
    done = run(alone, "sys.argv = ['jaxclr', 'list']; from jaxclr.__main__ import main; main()")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "pip install 'jaxclr[train]'" in done.stderr


def test_the_wheel_holds_what_it_needs(alone):
    assert (alone / "jaxclr" / "py.typed").is_file()
    assert (alone / "jaxclr" / "report" / "page.html").is_file()


# Data in memory need no library that only streams and TensorFlow Datasets use.
ONLY_TRAIN = """
import sys

sys.modules.update(dict.fromkeys(("tensorflow_datasets", "grain", "array_record")))
import jaxclr

print(jaxclr.data.load(jaxclr.Data("digits")).train.size)
sys.modules.update(dict.fromkeys(("matplotlib", "safetensors", "pyarrow", "flatbuffers", "torch")))
import pathlib

from jaxclr import api
from jaxclr.cli import exchanging, pretraining
from jaxclr.interop import tables, weights

jaxclr.Run, jaxclr.train, jaxclr.load
for call in (
    lambda: api.write_report([pathlib.Path("run")]),
    lambda: weights.write_safetensors(pathlib.Path("x.safetensors"), {}, {}),
):
    try:
        call()
    except jaxclr.UserError as error:
        print(error)
"""


def test_training_needs_no_other_extra():
    done = subprocess.run(
        [sys.executable, "-c", ONLY_TRAIN], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    images, report, weights = done.stdout.splitlines()
    assert images == "1437"
    assert "needs matplotlib" in report and "'jaxclr[report]'" in report
    assert "needs safetensors" in weights and "'jaxclr[interop]'" in weights
