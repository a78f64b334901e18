"""Any method on CIFAR-10: a ResNet-18 for images of 32 x 32, 200 epochs at batch 512.

    jaxclr train experiments/cifar10.py --method byol --data.dir DIR
    python experiments/cifar10.py                                   the table of all methods

DIR is where TensorFlow Datasets has prepared cifar10 as array_record. The recipe is the field's
usual one for small images; UniCLR's authors published none. Accuracy is that of the linear probe on
all labels; figures from pixels that were re-encoded as JPEG are marked.
"""

import dataclasses

from recipes import Recipe, show

from jaxclr import methods
from jaxclr.augment import AUGMENTATIONS, Augmentation, PhotoView, with_views
from jaxclr.data import Data
from jaxclr.encoders import Mlp, ResNet, ViT
from jaxclr.methods import METHODS, Method, MomentumEncoder
from jaxclr.training import AdamW, Config, Lars, Sgd

CIFAR = AUGMENTATIONS["cifar"]

# Queues and momentum for 50,000 images: ImageNet's are 65,536 and 0.999.
QUEUED = {"queue_size": 32_768, "target": MomentumEncoder(momentum=0.99)}

# As many images a cluster as on ImageNet, about fifty, twenty-five and twelve.
CLUSTERS = {"clusters": (1000, 2000, 4000)}

# The asymmetry divided by the batch does not depend on its size; the official one is not divided
# and has weight 0.01. This weight makes both the same at a batch of 128.
AFFINITY = {"temperature": 0.2, "symmetry_scale": "per_sample", "symmetry_weight": 0.01 * 128}

# The official code divides whitened affinities by the batch of a device; this is what it does at a
# batch of 256.
WHITENED = {**AFFINITY, "logit_divisor": 256.0}

# SimSiam's on CIFAR-10 (arXiv:2011.10566, D); for the others that have it, it is not tuned.
SLOW = Sgd(learning_rate=0.03, weight_decay=5e-4)

# Rates of SGD are large for a trained temperature.
SCALED = AdamW(learning_rate=1e-3, weight_decay=1e-4)


def heads(method: Method, hidden: int = 2048, out: int = 256) -> Method:
    """The method with heads for a ResNet-18, whose own are for a ResNet-50 and ImageNet."""
    return method.with_heads(hidden=hidden, out=out)


def narrow(method: Method) -> Method:
    """The method with heads as wide as a ResNet-18."""
    return heads(method, 512, 128)


# A method without a row has its defaults but for the heads.
RECIPES = {name: Recipe(heads(method())) for name, method in METHODS.items()} | {
    # The authors' optimizer and weight decay, here and wherever a row has its own optimizer.
    "align_uniform": Recipe(
        heads(methods.AlignUniform()), Sgd(learning_rate=0.12, weight_decay=1e-4)
    ),
    # Temperatures are learned: small ones make large gradients.
    "amcl": Recipe(methods.Amcl(), SLOW, clip_norm=1.0),
    # As many dimensions as the head is wide, as in the paper. One rate for all parameters, as other
    # work on CIFAR-10 has it; the paper trains on ImageNet alone.
    "barlow_twins": Recipe(
        heads(methods.BarlowTwins(), out=2048), Lars(learning_rate=0.3, weight_decay=1e-4)
    ),
    "byol_gsg": Recipe(methods.ByolGsg(), SLOW),
    # Gains by more views than it needs.
    "cacr": Recipe(
        heads(methods.Cacr()), Sgd(learning_rate=0.12, weight_decay=1e-4), with_views(CIFAR, 5)
    ),
    "cacr_moco_v3": Recipe(
        heads(methods.CacrMocoV3(temperature=0.2)), augmentation=AUGMENTATIONS["cifar_multi_crop"]
    ),
    "clip": Recipe(narrow(methods.Clip()), SCALED),
    "co2": Recipe(narrow(methods.Co2(**QUEUED))),
    "dcl": Recipe(narrow(methods.Dcl()), SLOW),
    "dclw": Recipe(narrow(methods.Dclw()), SLOW),
    "dino": Recipe(
        methods.Dino(prototypes=4096, freeze_prototypes=97),
        augmentation=AUGMENTATIONS["cifar_multi_crop"],
    ),
    # solo-learn's on ImageNet-100, here and for VIbCReg.
    "frossl": Recipe(heads(methods.FroSsl(), out=1024), Lars(learning_rate=0.3, weight_decay=1e-4)),
    "ft": Recipe(narrow(methods.Ft(**QUEUED))),
    # It needs patch tokens: a ViT-S with patches of 4 x 4 pixels.
    "ibot": Recipe(
        methods.Ibot(prototypes=4096, freeze_prototypes=97),
        AdamW(learning_rate=5e-4, weight_decay=0.04),
        augmentation=AUGMENTATIONS["cifar_multi_crop"],
        encoder=ViT(size="small", patch=4),
        clip_norm=3.0,
    ),
    "hydra": Recipe(
        heads(methods.Hydra()),
        AdamW(learning_rate=1e-3, weight_decay=5e-4),
        Augmentation((dataclasses.replace(CIFAR.views[0], crop_scale=(0.7, 1.0)),)),
    ),
    "lejepa": Recipe(
        heads(methods.LeJepa(), out=128), AdamW(learning_rate=5e-4, weight_decay=5e-4)
    ),
    "loco": Recipe(narrow(methods.Loco(temperature=0.5)), SLOW),
    # The authors' optimizer for ImageNet: a sum over the batch has gradients of its size.
    "mmcr": Recipe(heads(methods.Mmcr(), out=512), Lars(learning_rate=0.8, weight_decay=1e-6)),
    "moco_v2": Recipe(narrow(methods.MocoV2(**QUEUED))),
    "moco_v3": Recipe(heads(methods.MocoV3(temperature=0.2))),
    # Both gain by more views than they need.
    "mv_dhel": Recipe(
        narrow(methods.MvDhel()),
        Sgd(learning_rate=1.0, weight_decay=1e-6),
        with_views(CIFAR, 4),
    ),
    "mv_info_nce": Recipe(
        narrow(methods.MvInfoNce()),
        Sgd(learning_rate=1.0, weight_decay=1e-6),
        with_views(CIFAR, 4),
    ),
    "nnbyol": Recipe(heads(methods.NnByol(queue_size=32_768))),
    "nnclr": Recipe(heads(methods.NnClr(queue_size=32_768))),
    "pauc": Recipe(methods.Pauc(**CLUSTERS)),
    "pcl": Recipe(methods.Pcl(**CLUSTERS)),
    # The authors' queue and momentum.
    "ressl": Recipe(
        narrow(methods.ReSsl(queue_size=4096, target=MomentumEncoder(0.99, ramp=False))),
        augmentation=Augmentation((CIFAR.views[0], PhotoView(jitter=0.0, grayscale=0.0))),
    ),
    # The authors' heads and rate, for digits on CIFAR-10. Class 0 is the background: sep_clr.py has
    # a problem of two data sets.
    "sep_clr": Recipe(methods.SepClr(), AdamW(learning_rate=1.5e-4, weight_decay=0.0)),
    "siglip": Recipe(narrow(methods.SigLip()), SCALED),
    "sim_affinity": Recipe(heads(methods.SimAffinity(**AFFINITY))),
    "sim_siam": Recipe(methods.SimSiam(), SLOW),
    "sim_siam_gsg": Recipe(methods.SimSiamGsg(), SLOW),
    "sim_whitening": Recipe(heads(methods.SimWhitening(**WHITENED))),
    "sim_whitening_running": Recipe(heads(methods.SimWhiteningRunning(**WHITENED))),
    "simclr": Recipe(narrow(methods.SimClr(temperature=0.5)), SLOW),
    "sup_con": Recipe(narrow(methods.SupCon(temperature=0.1))),
    "swav": Recipe(methods.SwAv(queue_size=4096), Lars(learning_rate=0.6, weight_decay=1e-6)),
    "trip": Recipe(methods.Trip(), SLOW),
    "trip_roma": Recipe(methods.TripRoma(), SLOW),
    "uni_grad": Recipe(methods.UniGrad()),
    "vibcreg": Recipe(
        heads(methods.VibcReg(), out=2048), Lars(learning_rate=0.3, weight_decay=1e-4)
    ),
    "vicreg": Recipe(heads(methods.VicReg(), out=2048), Lars(learning_rate=0.3, weight_decay=1e-4)),
    # The paper's: embeddings of 64, sub-batches of 128, one cut of the batch, and 3e-3 at batch
    # 512.
    "w_mse": Recipe(
        methods.WMse(
            whitening_size=128, whitening_iterations=1, projector=Mlp(layers=2, hidden=1024, out=64)
        ),
        AdamW(learning_rate=1.5e-3, weight_decay=1e-6),
    ),
}


def config(method: str = "sim_affinity") -> Config:
    recipe = RECIPES[method]
    return Config(
        method=recipe.method,
        encoder=recipe.encoder or ResNet(depth=18, stem="cifar"),
        data=Data(source="tfds:cifar10"),
        augmentation=recipe.augmentation or with_views(CIFAR, recipe.method.views),
        optimizer=recipe.optimizer or Sgd(learning_rate=0.06, weight_decay=5e-4),
        epochs=200,
        batch_size=512,
        warmup_epochs=10.0,
        clip_norm=recipe.clip_norm,
        evaluate_every=20,
        checkpoint_every=10,
    )


if __name__ == "__main__":
    show(RECIPES, config)
