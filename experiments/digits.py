"""Any method on the embedded digits: 1,437 training images of 8 x 8, in about a minute on two CPU cores.

    jaxclr train experiments/digits.py --method sim_affinity
"""

from jaxclr.augment import AUGMENTATIONS
from jaxclr.data import Data
from jaxclr.encoders import ENCODERS
from jaxclr.methods import METHODS
from jaxclr.training import Config, Sgd

WIDTH = 64


def config(method: str = "sim_affinity") -> Config:
    chosen = METHODS[method]().with_heads(hidden=128, out=WIDTH)
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
        augmentation=AUGMENTATIONS["digits"],
        optimizer=Sgd(learning_rate=0.1),
        epochs=120,
        batch_size=128,
        warmup_epochs=5.0,
        checkpoint_every=40,
        evaluate_every=40,
    )
