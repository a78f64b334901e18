"""Any method on the embedded digits: 1,437 training images of 8 x 8, on two CPU cores.

    jaxclr train experiments/digits.py --method sim_affinity

Half a minute of training on two cores of an AMD EPYC (JAX 0.10.2, float32), ten seconds of probes. Linear probe with 5
and 10 labels a class on the 360 test images, mean of 3 seeds and 10 draws: sim_affinity 93.4 and 95.9, sim_trace_plain
93.8 and 96.5, raw pixels 83.1 and 89.4, the untrained encoder 76.7 and 84.5.
"""

import dataclasses

from jaxclr.augment import AUGMENTATIONS, with_views
from jaxclr.data import Data
from jaxclr.encoders import ENCODERS
from jaxclr.methods import METHODS, MomentumEncoder
from jaxclr.training import Config, Sgd

WIDTH = 64

# What methods size for ImageNet, by the name of the field.
SMALL = {
    "clusters": (20, 40),
    "freeze_prototypes": 0,
    "off_diagonal": 0.1,  # 0.0051 is for 8,192 dimensions: narrow embeddings have far fewer pairs
    "prototypes": 60,
    "queue_size": 256,
    "warmup_epochs": 0,
    "whitening_size": 128,
}


def config(method: str = "sim_affinity") -> Config:
    chosen = METHODS[method]().with_heads(hidden=128, out=WIDTH)
    chosen = chosen.replace(**{name: size for name, size in SMALL.items() if hasattr(chosen, name)})
    if isinstance(chosen.target, MomentumEncoder):
        # A run of 1,320 steps is short for averages over a thousand.
        momentum = min(chosen.target.momentum, 0.99)
        chosen = chosen.replace(target=dataclasses.replace(chosen.target, momentum=momentum))
    if hasattr(chosen, "temperature"):
        chosen = chosen.replace(temperature=0.5)
    if hasattr(chosen, "symmetry_scale"):
        chosen = chosen.replace(symmetry_scale="per_sample", symmetry_weight=1.0)
    if hasattr(chosen, "logit_divisor"):
        chosen = chosen.replace(temperature=0.2, logit_divisor=float(WIDTH))
    return Config(
        method=chosen,
        encoder=ENCODERS["small_conv"],
        data=Data(source="digits"),
        augmentation=with_views(AUGMENTATIONS["digits"], chosen.views),
        optimizer=Sgd(learning_rate=0.1),
        epochs=120,
        batch_size=128,
        warmup_epochs=5.0,
        # Temperatures that are learned can become small, and gradients large.
        clip_norm=1.0 if hasattr(chosen, "least_temperature") else None,
        checkpoint_every=40,
        evaluate_every=40,
    )
