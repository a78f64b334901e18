"""The losses stand on jax alone, so that users of any module system can take them."""

import subprocess
import sys

PROGRAM = """
import sys
for name in ("flax", "chex", "optax", "orbax", "sklearn", "tyro", "tensorflow_datasets"):
    sys.modules[name] = None
import jax.numpy as jnp
import jaxclr.affinity, jaxclr.losses
z = jnp.eye(4)
assert jnp.isfinite(jaxclr.losses.sim_affinity(z, z, temperature=0.2))
"""


def test_losses_import_jax_alone():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
