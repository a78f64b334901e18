"""Every test sees 8 CPU devices; rank promotion and warnings (pyproject.toml) are errors."""

import importlib.metadata
import os
import pathlib
import tempfile

# Tests compile much and compute little: without LLVM's optimizations, in one piece, and with XLA's
# older way of fusing they take a third of the time. JAX 0.12 has only the newer one, and fails on
# unknown flags.
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    FLAGS += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
os.environ["JAX_PLATFORMS"] = "cpu"
# Two workers on two cores: a second BLAS thread of each only waits for the other's.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# The user's own cache folder is left alone.
os.environ.setdefault("JAXCLR_CACHE", tempfile.mkdtemp(prefix="jaxclr-tests-"))
# Many tests compile what another one compiled, in this process or in another: a run that goes on,
# a command. The workers share one folder of programs, which is empty when the suite starts.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(os.environ["JAXCLR_CACHE"], "tests")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# gcsfs reads this when it is imported; see tests/buckets.py.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

import gc

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

import pytest

# Long tests that share nothing: either worker takes one when it is free, after all other files.
APART = ("test_api", "test_benchmarks", "test_collapse", "test_contributing", "test_devices")


def group(nodeid):
    """The tests that one worker runs, as they share trained runs and compiled programs: a file's.

    Of the battery those of one loss, whose name comes first in their parameters.
    """
    path, _, test = nodeid.partition("::")
    name = pathlib.PurePath(path).stem
    if name == "test_battery":
        return test.partition("[")[2].strip("]").partition(" ")[0]
    return nodeid if name in APART else name


def pytest_collection_modifyitems(items):
    places = {}
    items.sort(key=lambda item: places.setdefault(group(item.nodeid), len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    # `--dist loadgroup` of pytest-xdist 3.8 groups nothing under pytest 9.2.
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group(nodeid)

    return ByGroup(config, log)


@pytest.fixture
def strict_promotion():
    """Types never mix in silence: for the core, which promises what it computes in."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="session")
def gs():
    """The URL of a bucket of a server on this machine, which also the environment names."""
    import buckets

    with buckets.gcs() as url:
        yield url


@pytest.fixture(scope="session")
def s3():
    """Likewise of S3."""
    import buckets

    with buckets.s3() as url:
        yield url


@pytest.fixture(params=["gs", "s3"])
def bucket(request):
    """The URL of an empty folder in a bucket, of either kind."""
    import buckets

    return buckets.folder(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def one_program():
    """Runs of one recipe, such as one that is stopped and goes on, share their compiled step."""
    from jaxclr.training import loop

    known, compile_step = [], loop.compile_step

    def compile_once(session):
        for recipe, mesh, step in known:
            if recipe is session.recipe and mesh is session.mesh:
                return step
        known.append((session.recipe, session.mesh, compile_step(session)))
        return known[-1][-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_step", compile_once)
        yield


# Thousands of compiled functions slow the garbage collector, and so every trace: a process drops
# them between groups now and then, and collects seldom.
gc.set_threshold(50_000, 20, 20)
FORGET_AFTER = 60
ran = 0


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    global ran
    ran += 1
    if ran >= FORGET_AFTER and not (nextitem and group(item.nodeid) == group(nextitem.nodeid)):
        ran = 0
        jax.clear_caches()
        gc.collect()
