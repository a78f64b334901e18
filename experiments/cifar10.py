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
    Amcl,
    BarlowTwins,
    ByolGsg,
    CacrMocoV3,
    Co2,
    Dcl,
    Dclw,
    Ft,
    MocoV2,
    MocoV3,
    MomentumEncoder,
    MvDhel,
    MvInfoNce,
    Pauc,
    Pcl,
    SimAffinity,
    SimClr,
    SimSiam,
    SimSiamGsg,
    SimWhitening,
    SimWhiteningRunning,
    SupCon,
    SwAv,
    Trip,
    TripRoma,
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

# For queues and their momentum encoders.
QUEUED = {"queue_size": 32_768, "target": MomentumEncoder(momentum=0.99)}
# A narrow head, as wide as a ResNet-18.
NARROW = Mlp(layers=2, hidden=512, out=128)

# What differs from a method's defaults, by name; all others only get heads of HIDDEN and WIDTH.
TUNED = {
    "amcl": Amcl(),
    "barlow_twins": BarlowTwins().with_heads(hidden=HIDDEN, out=HIDDEN),
    "byol_gsg": ByolGsg(),
    "cacr_moco_v3": CacrMocoV3(temperature=0.2).with_heads(hidden=HIDDEN, out=WIDTH),
    "co2": Co2(projector=NARROW, **QUEUED),
    "dcl": Dcl(projector=NARROW),
    "dclw": Dclw(projector=NARROW),
    "ft": Ft(projector=NARROW, **QUEUED),
    "moco_v2": MocoV2(projector=NARROW, **QUEUED),
    "moco_v3": MocoV3(temperature=0.2).with_heads(hidden=HIDDEN, out=WIDTH),
    "mv_dhel": MvDhel().with_heads(hidden=512, out=128),
    "mv_info_nce": MvInfoNce().with_heads(hidden=512, out=128),
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
    "simclr": SimClr(temperature=0.5, projector=NARROW),
    "sup_con": SupCon(temperature=0.1, projector=NARROW),
    "swav": SwAv(queue_size=4096),
    "trip": Trip(),
    "trip_roma": TripRoma(),
    "uni_grad": UniGrad(),
    "vicreg": VicReg().with_heads(hidden=HIDDEN, out=HIDDEN),
    # The paper's: embeddings of 64, sub-batches of 128, one cut of the batch.
    "w_mse": WMse(
        whitening_size=128, whitening_iterations=1, projector=Mlp(layers=2, hidden=1024, out=64)
    ),
}
LEARNING_RATES = {
    "byol_gsg": 0.03,
    "dcl": 0.03,
    "dclw": 0.03,
    "sim_siam": 0.03,
    "sim_siam_gsg": 0.03,
    "simclr": 0.03,
    "trip": 0.03,
    "trip_roma": 0.03,
}

# Of methods that their authors train by another optimiser, or decay otherwise.
OPTIMIZERS = {
    "align_uniform": Sgd(learning_rate=0.12, weight_decay=1e-4),
    "barlow_twins": Lars(learning_rate=0.3, weight_decay=1e-4),
    "cacr": Sgd(learning_rate=0.12, weight_decay=1e-4),
    "mv_dhel": Sgd(learning_rate=1.0, weight_decay=1e-6),
    "mv_info_nce": Sgd(learning_rate=1.0, weight_decay=1e-6),
    "swav": Lars(learning_rate=0.6, weight_decay=1e-6),
    "vicreg": Lars(learning_rate=0.3, weight_decay=1e-4),
    "w_mse": AdamW(learning_rate=1.5e-3, weight_decay=1e-6),  # 3e-3 at batch 512
}

# Of methods whose temperatures are learned, as in the official code: small ones make large gradients.
CLIP_NORMS = {"amcl": 1.0}

# Of methods that gain by more views than they need.
VIEWS = {
    "cacr": with_views(AUGMENTATIONS["cifar"], 5),
    "cacr_moco_v3": AUGMENTATIONS["cifar_multi_crop"],
    "mv_dhel": with_views(AUGMENTATIONS["cifar"], 4),
    "mv_info_nce": with_views(AUGMENTATIONS["cifar"], 4),
}


def config(method: str = "sim_affinity") -> Config:
    chosen = TUNED.get(method) or METHODS[method]().with_heads(hidden=HIDDEN, out=WIDTH)
    sgd = Sgd(learning_rate=LEARNING_RATES.get(method, 0.06), weight_decay=5e-4)
    return Config(
        method=chosen,
        encoder=ResNet(depth=18, stem="cifar"),
        data=Data(source="tfds:cifar10"),
        augmentation=VIEWS.get(method) or with_views(AUGMENTATIONS["cifar"], chosen.views),
        optimizer=OPTIMIZERS.get(method, sgd),
        epochs=200,
        batch_size=512,
        warmup_epochs=10.0,
        clip_norm=CLIP_NORMS.get(method),
        evaluate_every=20,
        checkpoint_every=10,
    )
