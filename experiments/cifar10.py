"""Any method on CIFAR-10: a ResNet-18 for images of 32 x 32, 200 epochs at batch 512.

    jaxclr train experiments/cifar10.py --method sim_affinity --data.dir DIR

DIR is where TensorFlow Datasets has prepared cifar10 as array_record. The recipe is the field's usual one for small
images; UniCLR's authors published none. A file per method stands beside this one.

Time: not run yet. Accuracy: not run yet; one measured on pixels that were re-encoded as JPEG will say so.
"""

from jaxclr.augment import AUGMENTATIONS, with_views
from jaxclr.data import Data
from jaxclr.encoders import Mlp, ResNet
from jaxclr.methods import METHODS, MocoV3, SimAffinity, SimClr, SimSiam, SimWhitening
from jaxclr.training import Config, Sgd

HIDDEN, WIDTH = 2048, 256

# The asymmetry divided by the batch does not depend on its size; the official one is not divided and has weight 0.01.
# This weight makes both the same at a batch of 128.
SYMMETRY = {"symmetry_scale": "per_sample", "symmetry_weight": 0.01 * 128}

# What differs from a method's defaults, by name; all others only get heads of HIDDEN and WIDTH.
TUNED = {
    "moco_v3": MocoV3(temperature=0.2).with_heads(hidden=HIDDEN, out=WIDTH),
    "sim_affinity": SimAffinity(temperature=0.2, **SYMMETRY).with_heads(hidden=HIDDEN, out=WIDTH),
    "sim_siam": SimSiam(),
    # The official code divides whitened affinities by the batch of a device; this is what it does at a batch of WIDTH.
    "sim_whitening": SimWhitening(
        temperature=0.2, logit_divisor=float(WIDTH), **SYMMETRY
    ).with_heads(hidden=HIDDEN, out=WIDTH),
    "simclr": SimClr(temperature=0.5, projector=Mlp(layers=2, hidden=512, out=128)),
}
LEARNING_RATES = {"sim_siam": 0.03, "simclr": 0.03}


def config(method: str = "sim_affinity") -> Config:
    chosen = TUNED.get(method) or METHODS[method]().with_heads(hidden=HIDDEN, out=WIDTH)
    return Config(
        method=chosen,
        encoder=ResNet(depth=18, stem="cifar"),
        data=Data(source="tfds:cifar10"),
        augmentation=with_views(AUGMENTATIONS["cifar"], chosen.views),
        optimizer=Sgd(learning_rate=LEARNING_RATES.get(method, 0.06), weight_decay=5e-4),
        epochs=200,
        batch_size=512,
        warmup_epochs=10.0,
        evaluate_every=20,
        checkpoint_every=10,
    )
