"""Tests of every loss. A check in CHECKS runs for each entry that states no exemption."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import ROWS, WIDTH, entries
from distributed import loss_and_gradients

pytestmark = pytest.mark.usefixtures("strict_promotion")
ENTRIES = entries()


def in_one_process(entry, *more, marks=()):
    """Tests of an entry run in one process, which compiles it once: see tests/conftest.py."""
    name = " ".join([entry.name, *(str(getattr(one, "name", one)) for one in more)])
    return pytest.param(entry, *more, id=name, marks=marks)


every_loss = pytest.mark.parametrize("entry", tuple(map(in_one_process, ENTRIES)))


TRACES = []  # grows whenever a loss is traced


@functools.lru_cache(maxsize=2)
def compiled(entry):
    """The compiled loss and its gradients with respect to the float arrays."""
    traced = lambda *arrays: TRACES.append(None) or entry(*arrays)
    return jax.jit(jax.value_and_grad(traced, entry.floats))


def value_at(entry, arrays):
    return compiled(entry)(*arrays)[0]


@functools.lru_cache(maxsize=2)
def compiled_value(entry):
    """The compiled loss alone, which takes half the time to compile."""
    return jax.jit(entry)


def cast(arrays, dtype):
    """Jax arrays, the floats among them in this type."""
    floating = lambda a: np.issubdtype(a.dtype, np.floating)
    return tuple(jnp.asarray(a, dtype if floating(a) else None) for a in arrays)


@every_loss
def test_value_is_the_definition(entry):
    with jax.enable_x64(True):
        for rows in entry.rows:
            arrays = entry.arrays(rows=rows)
            values = cast(arrays, jnp.float64)
            # Gradients of so many rows are compiled for other tests.
            value = value_at(entry, values) if rows == ROWS else compiled_value(entry)(*values)
            np.testing.assert_allclose(value, entry.oracle(*arrays), rtol=1e-9, atol=1e-9)


@every_loss
def test_value_in_float32_is_compiled_once(entry):
    TRACES.clear()
    for seed in range(3):
        arrays = entry.arrays(seed)
        value = value_at(entry, cast(arrays, jnp.float32))
        assert value.dtype == jnp.float32 and value.shape == ()
        np.testing.assert_allclose(value, entry.oracle(*arrays), rtol=1e-5, atol=1e-5)
    assert len(TRACES) <= 1


@pytest.mark.parametrize(
    "dtype, tolerance",
    [(jnp.float64, 1e-9), pytest.param(jnp.float32, 1e-5, marks=pytest.mark.full)],
)
@pytest.mark.parametrize(
    "entry, golden", [in_one_process(entry, golden) for entry in ENTRIES for golden in entry.golden]
)
def test_official_values_and_gradients(entry, golden, dtype, tolerance):
    norms = golden.row["grad_norms"]
    indices = range(len(norms)) if golden.differentiated is None else golden.differentiated
    norms = norms[: len(indices)]
    with jax.enable_x64(True):
        loss = jax.jit(jax.value_and_grad(golden.loss or entry, tuple(indices) or 0))
        value, gradients = loss(*cast(golden.arrays, dtype))
        np.testing.assert_allclose(value, golden.row["loss"], rtol=tolerance, atol=tolerance)
        for gradient, norm in zip(gradients, norms, strict=bool(norms)):
            np.testing.assert_allclose(
                np.linalg.norm(gradient), norm, rtol=10 * tolerance, atol=tolerance
            )


def assert_same_on_devices(entry, loss, devices, how, names=("batch",)):
    with jax.enable_x64(True):
        arrays = entry.arrays()
        value, gradients = compiled(entry)(*arrays)
        spread_value, spread_gradients = loss_and_gradients(
            loss, arrays, devices, how, names, entry.axes, entry.floats
        )
        np.testing.assert_allclose(spread_value, value, rtol=1e-10, atol=1e-12)
        for one, other in zip(gradients, spread_gradients, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12)


# Rings over two axes under shard_map for every loss, and tiles under pmap for one loss of each
# primitive of jaxclr.affinity, which tests/affinity/test_implementations.py compares; the rest in
# the full grid. On one device so few rows are dense.
RING = (8, "shard_map", ("slice", "chip"), "ring")
STREAMED = (2, "pmap", ("batch",), "streamed")
OF_PRIMITIVES = {"cacr", "clip", "co2", "info_nce", "nt_xent", "siglip", "sup_con"}
REST = tuple(
    (devices, how, ("batch",), implementation)
    for devices in (1, 2, 8)
    for how in ("pmap", "shard_map")
    for implementation in ("dense", "streamed", "ring")
)


def cases(entry):
    """Those of a loss; without an implementation to choose all three are one."""
    for case in (RING, *REST):
        if entry.takes_implementation or case == RING or case[-1] == "dense":
            short = case == RING or (case == STREAMED and entry.name in OF_PRIMITIVES)
            yield in_one_process(entry, case, marks=() if short else (pytest.mark.full,))


@pytest.mark.parametrize("entry, case", [case for entry in ENTRIES for case in cases(entry)])
def test_devices_and_implementations_share_one_loss(entry, case):
    devices, how, names, implementation = case
    settings = {
        **entry.settings,
        **({"implementation": implementation} if entry.takes_implementation else {}),
    }
    spread = dataclasses.replace(entry, settings=settings)
    assert_same_on_devices(entry, spread, devices, how, names)


@every_loss
def test_stopped_inputs_get_exactly_nothing(entry):
    _, gradients = compiled(entry)(*cast(entry.arrays(), jnp.float32))
    for index, gradient in zip(entry.floats, gradients, strict=True):
        assert (np.abs(gradient).max() == 0) == (index in entry.stopped), index


@every_loss
def test_bfloat16_is_welcome(entry):
    arrays = entry.arrays()
    halves = cast(arrays, jnp.bfloat16)
    value = compiled_value(entry)(*halves)
    assert value.dtype == jnp.float32
    exact = entry.oracle(*arrays)
    assert abs(value - exact) <= entry.bfloat16_tolerance * max(1.0, abs(exact))
    gradients = jax.eval_shape(jax.grad(entry, entry.floats), *halves)
    assert {gradient.dtype for gradient in gradients} == {jnp.dtype(jnp.bfloat16)}


def degenerate(entry):
    """Batches that embeddings fall into: of the float arrays that run over the batch."""
    arrays = entry.arrays()
    changed = [i for i in entry.floats if entry.axes[i] is not None]

    def batch(change):
        return [change(a, i) if i in changed else a for i, a in enumerate(arrays)]

    def rows(a, i):
        """Whether a row is the fourth, in the shape of the array."""
        return (np.arange(ROWS) == 3).reshape((-1,) + (1,) * (a.ndim - entry.axes[i] - 1))

    def instead(a, other):
        """The other, where it can stand in the place of this one."""
        return other if a.ndim == 2 and a.shape == other.shape else a

    def equal_views(a, i):
        return np.broadcast_to(a[:1], a.shape) if a.ndim > 2 else instead(a, arrays[changed[0]])

    def duplicated(a, i):
        return np.repeat(np.take(a, [0, 1], entry.axes[i]), ROWS // 2, entry.axes[i])

    yield "collapsed", batch(lambda a, i: np.ones_like(a))
    yield "equal views", batch(equal_views)
    yield "duplicated", batch(duplicated)
    yield "zero", batch(lambda a, i: np.zeros_like(a))
    yield "one zero row", batch(lambda a, i: a * ~rows(a, i))
    if "scaling" not in entry.exempt:
        yield "huge row", batch(lambda a, i: np.where(rows(a, i), 1e30 * a, a))
        yield "tiny", batch(lambda a, i: 1e-30 * a)
    yield "opposite", batch(lambda a, i: a if i % 2 else -instead(a, arrays[changed[-1]]))


@every_loss
def test_degenerate_inputs_stay_finite(entry):
    for name, arrays in degenerate(entry):
        value, gradients = compiled(entry)(*cast(arrays, jnp.float32))
        assert np.isfinite(value), name
        assert all(np.isfinite(gradient).all() for gradient in gradients), name


@every_loss
def test_bad_embeddings_are_refused(entry):
    good = cast(entry.arrays(), jnp.float32)
    first = next(i for i in entry.floats if entry.axes[i] is not None)
    having = lambda value: (*good[:first], value, *good[first + 1 :])
    with pytest.raises(ValueError, match=r"got shape \(6,\)"):
        entry(*having(jnp.ones(WIDTH)))
    with pytest.raises(TypeError, match="floats, got int32"):
        entry(*having(jnp.ones(good[first].shape, jnp.int32)))
    with pytest.raises(TypeError, match="got list"):
        entry(*having([[1.0]]))
    with pytest.raises(ValueError, match="at least 1"):
        entry(*having(jnp.take(good[first], jnp.arange(0), entry.axes[first])))
    others = [i for i, axis in enumerate(entry.axes) if axis is not None and i != first]
    for other in others:
        short = jnp.take(good[other], jnp.arange(ROWS - 1), entry.axes[other])
        with pytest.raises(ValueError, match=r"\b15\b"):
            entry(*good[:other], short, *good[other + 1 :])


def gradient_is_the_slope(entry):
    """Along a random direction; of float arrays that get a gradient."""
    kept = [i for i in entry.floats if i not in entry.stopped]
    generator = np.random.default_rng(2)
    with jax.enable_x64(True):
        arrays = cast(entry.arrays(), jnp.float64)
        direction = {i: generator.normal(size=arrays[i].shape) for i in kept}

        def moved(by):
            return [a + by * direction[i] if i in kept else a for i, a in enumerate(arrays)]

        _, gradients = compiled(entry)(*arrays)
        by_index = dict(zip(entry.floats, gradients, strict=True))
        slope = sum(np.sum(by_index[i] * direction[i]) for i in kept)
        eps = 1e-6
        change = value_at(entry, moved(eps)) - value_at(entry, moved(-eps))
        np.testing.assert_allclose(slope, change / (2 * eps), rtol=1e-6, atol=1e-6)


def rows_may_be_scaled(entry):
    arrays, axes = entry.arrays(), entry.axes
    factors = np.random.default_rng(1).uniform(0.1, 1e4, size=ROWS)

    def scaled(a, axis):
        if axis is None or not np.issubdtype(a.dtype, np.floating):
            return a
        return a * factors.reshape((-1,) + (1,) * (a.ndim - axis - 1))

    assert_same_value(entry, map(scaled, arrays, axes))


def rows_may_be_permuted(entry):
    order = np.random.default_rng(1).permutation(ROWS)
    permuted = lambda a, axis: a if axis is None else np.take(a, order, axis)
    assert_same_value(entry, map(permuted, entry.arrays(), entry.axes))


def assert_same_value(entry, changed):
    with jax.enable_x64(True):
        value = value_at(entry, cast(entry.arrays(), jnp.float64))
        other = value_at(entry, cast(changed, jnp.float64))
        np.testing.assert_allclose(other, value, rtol=1e-10, atol=1e-12)


def no_matrix_of_the_batch_is_formed(entry):
    rows = 4096
    like = [
        jax.ShapeDtypeStruct(a.shape, a.dtype)
        for a in cast(entry.arrays(rows=rows, width=8), jnp.float32)
    ]
    inputs = sum(a.size * a.dtype.itemsize for a in like)
    bound = 16 * inputs + 10 * 1024**2 * 4
    assert bound < rows * rows * 4
    memory = compiled(entry).lower(*like).compile().memory_analysis()
    assert memory.temp_size_in_bytes < bound


def bad_hyper_parameters_are_refused(entry):
    good = cast(entry.arrays(), jnp.float32)
    assert entry.hyper_parameters
    for name in entry.hyper_parameters:
        wrong = () if name in entry.signed else (-1.0, *([0] if name in entry.positive else []))
        for bad in (*wrong, float("nan")):
            with pytest.raises(ValueError, match=f"{name} must be"):
                entry.loss(*good, **{**entry.settings, name: bad})
        with pytest.raises(TypeError, match=f"{name} must be a number"):
            entry.loss(*good, **{**entry.settings, name: "0.1"})


CHECKS = {
    "slope": gradient_is_the_slope,
    "scaling": rows_may_be_scaled,
    "permutation": rows_may_be_permuted,
    "memory": no_matrix_of_the_batch_is_formed,
    "hyper-parameters": bad_hyper_parameters_are_refused,
}


@pytest.mark.parametrize(
    "entry, check",
    [in_one_process(e, check) for e in ENTRIES for check in CHECKS if check not in e.exempt],
)
def test_check(entry, check):
    CHECKS[check](entry)


@pytest.mark.parametrize(
    "entry, check", [in_one_process(entry, check) for entry in ENTRIES for check in entry.exempt]
)
def test_exempted_check_has_a_reason_and_would_fail(entry, check):
    assert entry.exempt[check]
    with pytest.raises(AssertionError):
        CHECKS[check](entry)


@pytest.mark.full
@pytest.mark.parametrize(
    "entry", [in_one_process(entry) for entry in ENTRIES if "temperature" in entry.settings]
)
def test_a_scheduled_temperature_is_accepted(entry):
    good = cast(entry.arrays(), jnp.float32)
    settings = {**entry.settings}
    temperature = settings.pop("temperature")
    scheduled = jax.jit(lambda t: entry.loss(*good, **settings, temperature=t))
    value = value_at(entry, good)
    np.testing.assert_allclose(scheduled(jnp.float32(temperature)), value, rtol=1e-6)
