"""Any method on CIFAR-10: a ResNet-18 for images of 32 x 32, 200 epochs at batch 512.

    jaxclr train experiments/cifar10.py --method sim_affinity --data.dir DIR

DIR is where TensorFlow Datasets has prepared cifar10 as array_record. The recipe is the field's usual one for small
images; UniCLR's authors published none. A file per method stands beside this one.

Time: not run yet. Accuracy: not run yet; one measured on pixels that were re-encoded as JPEG will say so.
"""

from jaxclr.augment import AUGMENTATIONS, with_views
from jaxclr.data import Data
from jaxclr.encoders import Mlp, ResNet
from jaxclr.methods import (
    METHODS,
    BarlowTwins,
    ByolGsg,
    MocoV3,
    Pauc,
    Pcl,
    SimAffinity,
    SimClr,
    SimSiam,
    SimSiamGsg,
    SimWhitening,
    SimWhiteningRunning,
    SwAv,
    UniGrad,
    VicReg,
    WMse,
)
from jaxclr.training import AdamW, Config, Lars, Sgd

HIDDEN, WIDTH = 2048, 256

# The asymmetry divided by the batch does not depend on its size; the official one is not divided and has weight 0.01.
# This weight makes both the same at a batch of 128.
SYMMETRY = {"symmetry_scale": "per_sample", "symmetry_weight": 0.01 * 128}

# As many images a cluster as on ImageNet, about fifty, twenty-five and twelve.
CLUSTERS = {"clusters": (1000, 2000, 4000)}

# What differs from a method's defaults, by name; all others only get heads of HIDDEN and WIDTH.
TUNED = {
    "barlow_twins": BarlowTwins().with_heads(hidden=HIDDEN, out=HIDDEN),
    "byol_gsg": ByolGsg(),
    "moco_v3": MocoV3(temperature=0.2).with_heads(hidden=HIDDEN, out=WIDTH),
    "pauc": Pauc(**CLUSTERS),
    "pcl": Pcl(**CLUSTERS),
    "sim_affinity": SimAffinity(temperature=0.2, **SYMMETRY).with_heads(hidden=HIDDEN, out=WIDTH),
    "sim_siam": SimSiam(),
    "sim_siam_gsg": SimSiamGsg(),
    # The official code divides whitened affinities by the batch of a device; this is what it does at a batch of WIDTH.
    "sim_whitening": SimWhitening(
        temperature=0.2, logit_divisor=float(WIDTH), **SYMMETRY
    ).with_heads(hidden=HIDDEN, out=WIDTH),
    "sim_whitening_running": SimWhiteningRunning(
        temperature=0.2, logit_divisor=float(WIDTH), **SYMMETRY
    ).with_heads(hidden=HIDDEN, out=WIDTH),
    "simclr": SimClr(temperature=0.5, projector=Mlp(layers=2, hidden=512, out=128)),
    "swav": SwAv(queue_size=4096),
    "uni_grad": UniGrad(),
    "vicreg": VicReg().with_heads(hidden=HIDDEN, out=HIDDEN),
    # The paper's: embeddings of 64, sub-batches of 128, one cut of the batch.
    "w_mse": WMse(
        whitening_size=128, whitening_iterations=1, projector=Mlp(layers=2, hidden=1024, out=64)
    ),
}
LEARNING_RATES = {"byol_gsg": 0.03, "sim_siam": 0.03, "sim_siam_gsg": 0.03, "simclr": 0.03}

# Of methods that their authors train by another optimiser than SGD.
OPTIMIZERS = {
    "barlow_twins": Lars(learning_rate=0.3, weight_decay=1e-4),
    "swav": Lars(learning_rate=0.6, weight_decay=1e-6),
    "vicreg": Lars(learning_rate=0.3, weight_decay=1e-4),
    "w_mse": AdamW(learning_rate=1.5e-3, weight_decay=1e-6),  # 3e-3 at batch 512
}


def config(method: str = "sim_affinity") -> Config:
    chosen = TUNED.get(method) or METHODS[method]().with_heads(hidden=HIDDEN, out=WIDTH)
    sgd = Sgd(learning_rate=LEARNING_RATES.get(method, 0.06), weight_decay=5e-4)
    return Config(
        method=chosen,
        encoder=ResNet(depth=18, stem="cifar"),
        data=Data(source="tfds:cifar10"),
        augmentation=with_views(AUGMENTATIONS["cifar"], chosen.views),
        optimizer=OPTIMIZERS.get(method, sgd),
        epochs=200,
        batch_size=512,
        warmup_epochs=10.0,
        evaluate_every=20,
        checkpoint_every=10,
    )
