"""How a state lies on the devices: whole on each, or some arrays split along a dimension."""

from typing import Any, Literal, get_args

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.affinity.collectives import AxisName, axis_size, gather_rows, scatter_sum

Array = jax.Array
Tree = Any
StateSharding = Literal["replicated", "optimizer", "all"]

STATE_SHARDINGS: tuple[StateSharding, ...] = get_args(StateSharding)


def split(tree: Tree, devices: int, axis: AxisName) -> Tree:
    """The specs of arrays that are split along the first dimension that the devices divide.

    Arrays without such a dimension are whole on every device.
    """

    def spec(leaf: Array) -> P:
        for dimension, size in enumerate(leaf.shape):
            if devices > 1 and size and size % devices == 0:
                return P(*(None,) * dimension, axis)
        return P()

    return jax.tree.map(spec, tree)


def whole(tree: Tree) -> Tree:
    """The specs of arrays that are whole on every device."""
    return jax.tree.map(lambda _: P(), tree)


def state_specs(state: Any, how: StateSharding, mesh: Mesh) -> Any:
    """The spec of each leaf of a state.

    Args:
      state: its arrays, or their shapes.
      how: "replicated": all is whole on every device. "optimizer": the optimizer's state and the
        momentum encoder's parameters are split. "all": the parameters too.
      mesh: the devices, of one axis.
    """
    names = {"replicated": (), "optimizer": ("opt_state", "target_params")}
    parts = {**names, "all": ("opt_state", "target_params", "params")}[how]
    (axis,) = mesh.axis_names if parts else (None,)
    cut = {name: split(getattr(state, name), mesh.size, axis) for name in parts}
    return whole(state).replace(**cut)


def shardings(specs: Tree, mesh: Mesh) -> Tree:
    """The shardings of specs on a mesh."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def gather(tree: Tree, specs: Tree, axis_name: AxisName) -> Tree:
    """Whole arrays from this device's parts; the transpose sums over devices and scatters."""

    def leaf(part: Array, spec: P) -> Array:
        return gather_rows(part, axis_name, len(spec) - 1) if len(spec) else part

    return jax.tree.map(leaf, tree, specs)


def mean_gradient(tree: Tree, specs: Tree, wanted: Tree, axis_name: AxisName) -> Tree:
    """The mean over devices of gradients at parameters, in this device's part of it.

    Args:
      tree: this device's gradients at its parameters: sums over devices where these are split, by
        the transpose of `gather`.
      specs: of the parameters.
      wanted: of the result; equal to `specs` where parameters are split.
      axis_name: mapped axis; None for one device.
    """

    def leaf(gradient: Array, spec: P, result: P) -> Array:
        if len(spec):
            return gradient / axis_size(axis_name)
        if len(result):
            return scatter_sum(gradient, axis_name, len(result) - 1) / axis_size(axis_name)
        return gradient if axis_name is None else jax.lax.pmean(gradient, axis_name)

    return jax.tree.map(leaf, tree, specs, wanted)
