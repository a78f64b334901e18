"""Several heads with a temperature for each pair."""

import jax
import jax.numpy as jnp
import numpy as np
from battery import Entry, lse, unit, views

from jaxclr import losses


def two_heads(generator, rows, width):
    heads = views(4)(generator, rows, width)
    return np.stack(heads[:2]), np.stack(heads[2:])


def temperature_of(x, y):
    """Not the same for (y, x)."""
    ramp = jnp.linspace(-1.0, 1.0, x.shape[-1], dtype=x.dtype)
    return 0.2 + 0.5 * jax.nn.sigmoid(x @ ramp + 2 * jnp.abs(y[..., 0]))


def adaptive_multi_head(heads1, heads2, beta):
    total = 0.0
    for z in unit(np.concatenate([heads1, heads2], axis=1)):
        exponents = (z @ np.linspace(-1, 1, z.shape[1]))[:, None] + 2 * np.abs(z[:, 0])[None, :]
        temperatures = 0.2 + 0.5 / (1 + np.exp(-exponents))
        logits = z @ z.T / temperatures
        positive = np.diag(np.roll(logits, len(z) // 2, axis=1))
        penalties = z.shape[1] / 2 * np.log(temperatures) + 1 / temperatures
        others = ~np.eye(len(z), dtype=bool)
        total += np.mean(lse(np.where(others, logits, -np.inf)) - positive)
        total += beta * np.mean(penalties[others])
    return total


ENTRIES = (
    Entry(
        "adaptive_multi_head",
        losses.adaptive_multi_head,
        lambda heads1, heads2: adaptive_multi_head(heads1, heads2, 0.1),
        {"temperature_fn": temperature_of, "beta": 0.1},
        make=two_heads,
        spread=(1, 1),
    ),
)
