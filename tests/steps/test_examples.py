"""Batches of a split, of any tree of arrays, and functions compiled for one batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr.data import Split
from jaxclr.steps.examples import apply_in_batches, batches, fill

DATA = {
    "series": np.random.default_rng(0).normal(size=(23, 7, 2)).astype(np.float32),
    "length": np.arange(23),
}


class Tree(Split):
    """A split whose examples are a tree of arrays."""

    @property
    def size(self):
        return len(self.labels)


@pytest.mark.parametrize("rows", [None, [5, 1, 22, 1, 0, 7, 8, 9]])
def test_batches_of_a_tree_are_its_rows_in_order(rows):
    split = Tree(DATA, np.arange(23, dtype=np.int32) % 3)
    some = list(batches(split, size=None, batch=5, rows=rows))
    wanted = np.arange(23) if rows is None else np.array(rows)
    assert [len(part.labels) for part in some[:-1]] == [5] * (len(some) - 1)
    assert [part.seen for part in some] == [*range(5, len(wanted), 5), len(wanted)]
    np.testing.assert_array_equal(np.concatenate([part.indices for part in some]), wanted)
    np.testing.assert_array_equal(np.concatenate([part.labels for part in some]), wanted % 3)
    for name, values in DATA.items():
        found = np.concatenate([part.data[name] for part in some])
        np.testing.assert_array_equal(found, values[wanted])


def test_what_has_no_labels_and_no_files():
    (some,) = batches(Split(np.zeros((3, 2, 2, 1), np.uint8), None), size=None)
    assert some.labels.tolist() == [-1] * 3 and some.names is None


def test_one_size_of_batch_is_compiled():
    compiled = []

    @jax.jit
    def function(data):
        compiled.append(data["series"].shape)
        return jnp.sum(data["series"], axis=(1, 2)), data["length"][:, None] + 1

    sums, longer = apply_in_batches(function, DATA, batch=10)
    np.testing.assert_allclose(sums, DATA["series"].sum(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(longer, DATA["length"][:, None] + 1)
    assert compiled == [(10, 7, 2)]
    assert fill(np.arange(3), 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
