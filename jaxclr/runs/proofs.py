"""The proof of a checkpoint: type, shape and digest of every leaf of the state that was saved."""

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxclr.runs.digests import digests
from jaxclr.steps.state import State

T = TypeVar("T")


def proof(state: State) -> dict[str, Any]:
    """Type, shape and digest of each leaf, with a checksum of the list."""
    leaves = {
        name: {**kind, "digest": digest}
        for (name, kind), digest in zip(kinds(state).items(), digests(state).values(), strict=True)
    }
    return {"leaves": leaves, "crc32": _crc32(leaves)}


def checked_leaves(proof: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The leaves of a proof; raises ValueError if their list was altered."""
    if proof["crc32"] != _crc32(proof["leaves"]):
        raise ValueError("its list of leaves was altered")
    return proof["leaves"]


def check_digests(got: Mapping[T, str | None], saved: dict[T, dict[str, Any]]) -> None:
    """Raises ValueError unless all digests are those that were saved."""
    wrong = [name for name, digest in got.items() if digest != saved[name]["digest"]]
    if wrong:
        more = f" and {len(wrong) - 1} more" * (len(wrong) > 1)
        raise ValueError(f"{wrong[0]}{more} differs from what was saved")


def words(name: str) -> str:
    """The words of a leaf's path. For Orbax .params[0] and ['params']['0'] are the same leaf."""
    return " ".join(re.findall(r"\w+", name))


def raw(leaf: Any) -> Any:
    """The array that is written for a leaf, or its shape and type: the data of a typed key."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def typed(data: jax.Array, like: jax.Array) -> jax.Array:
    """The leaf of an array that `raw` returned, of the type of another leaf."""
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like)) if _is_key(like) else data


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def kinds(state: State) -> dict[str, dict[str, Any]]:
    """Type and shape of every leaf by its path."""
    return {
        jax.tree_util.keystr(path): {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}
        for path, leaf in jax.tree.leaves_with_path(state)
    }


def describe(kind: dict[str, Any]) -> str:
    """Type and shape for a message."""
    return f"{kind['dtype']}{kind['shape']}"


def _crc32(leaves: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(leaves, sort_keys=True).encode())
