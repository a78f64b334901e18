"""A method that refreshes its state from the embeddings of all images."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxclr.methods import Method, MomentumEncoder, Target


@dataclasses.dataclass(frozen=True)
class Clusters(Method):
    """Pulls embeddings to the mean of their cluster, which is the parity of an image's place."""

    target: Target = MomentumEncoder(momentum=0.9)
    refresh_from: int = 1

    def init_state(self, key, sizes):
        return {
            "cluster": jnp.zeros(sizes.images, jnp.int32),
            "centres": jnp.zeros((2, sizes.embedding)),
            "embeddings": jnp.zeros((sizes.images, sizes.embedding)),
            "times": jnp.zeros((), jnp.int32),
            "draw": jnp.zeros(()),
            "walk": jnp.zeros(()),
        }

    def objective(self, out, state, axis_name):
        centres = state["centres"][state["cluster"][out.indices]]
        (z1, _), (_, k2) = out.embeddings, out.targets
        return jnp.mean((z1 - centres) ** 2) - jnp.mean(z1 * k2)

    def next_state(self, out, state, axis_name):
        return {**state, "walk": state["walk"] + jax.random.normal(out.key)}

    def refresh(self, state, embeddings, key):
        return {
            **state,
            "cluster": jnp.arange(len(embeddings)) % 2,
            "centres": jnp.stack([embeddings[::2].mean(0), embeddings[1::2].mean(0)]),
            "embeddings": embeddings,
            "times": state["times"] + 1,
            "draw": jax.random.uniform(key),
        }
