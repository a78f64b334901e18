"""Any method on ImageNet with a ResNet-50, 100 epochs at batch 4096, as in UniCLR's official code.

    jaxclr train experiments/imagenet.py --method sim_affinity --data.dir DIR
    python experiments/imagenet.py                                  the table of all methods

DIR is where TensorFlow Datasets has prepared imagenet2012 as array_record. imagenet_vit_small.py
has the ViT-Small.

The decoded images, 244 GiB at 256 x 256, do not fit in memory: they are streamed, each cropped from
its whole file by --data.workers processes (None: a process for each core), and evaluated on the
central square of 256. A subset works: --data.source folder:PATH, with a --batch-size that it fills.
Below --data.memory-limit it lives in memory, at 256 x 256; --data.streaming always streams it too.

Heads, temperatures, momenta and queues are those of each method's paper. Augmentation, optimizer,
batch and epochs are those of MoCo v3, which the official code follows, so that only methods differ;
exceptions are the rows below. What differs from the official code: the affinity methods use scales
that do not depend on the batch size (see below), evaluation sees the whole central square of an
image, AdamW does not decay biases and norms, and bfloat16 replaces float16. Accuracy is that of the
linear probe on all labels.
"""

import dataclasses

from recipes import Recipe, show

from jaxclr import methods
from jaxclr.augment import AUGMENTATIONS, Augmentation, PhotoView, with_views
from jaxclr.data import Data
from jaxclr.encoders import ResNet, ViT
from jaxclr.methods import METHODS, Method, MomentumEncoder
from jaxclr.training import AdamW, Config, Lars

# The channels of ImageNet have the field's usual mean and standard deviation.
IMAGES = Data(
    source="tfds:imagenet2012",
    image_size=256,
    channels="rgb",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

# Equal at a batch of 128 to the official asymmetry, which is not divided by the batch and has
# weight 0.01.
SYMMETRIC = {"symmetry_scale": "per_sample", "symmetry_weight": 0.01 * 128}

# The official code divides whitened affinities by the batch of a device, whose size is not known.
# They are at most some 72 times a cosine at a width of 256: temperature 1 would leave them almost
# flat.
WHITENED = {**SYMMETRIC, "temperature": 0.2, "logit_divisor": 256.0}

# MoCo v3's crops with a ResNet-50 are at least 0.2 of an image; with a ViT they are UniCLR's.
LARGE_CROPS = Augmentation(
    tuple(dataclasses.replace(view, crop_scale=(0.2, 1.0)) for view in AUGMENTATIONS["byol"].views)
)

# ReSSL's keys are only cropped and flipped.
WEAK_KEYS = Augmentation(
    (
        AUGMENTATIONS["moco"].views[0],
        PhotoView(size=224, jitter=0.0, grayscale=0.0),
    )
)

# The optimizer of MoCo v3 with a ViT.
TOWERS = AdamW(learning_rate=1.5e-4, weight_decay=0.1)


def at(temperature: float) -> dict[str, Method]:
    """Every method; UniCLR's, MoCo v3 and CACR with MoCo v3 at a temperature for the encoder."""
    return {name: method() for name, method in METHODS.items()} | {
        # The paper's momentum for 100 and for 300 epochs.
        "byol": methods.Byol(target=MomentumEncoder(momentum=0.99, update="after_update")),
        "cacr_moco_v3": methods.CacrMocoV3(temperature=temperature),
        "moco_v3": methods.MocoV3(temperature=temperature),
        "sim_affinity": methods.SimAffinity(temperature=temperature, **SYMMETRIC),
        "sim_whitening": methods.SimWhitening(**WHITENED),
        "sim_whitening_running": methods.SimWhiteningRunning(**WHITENED),
    }


# MoCo v3 with a ResNet-50 has temperature 1. A measured recipe has its time and accuracy here.
RECIPES = {name: Recipe(method) for name, method in at(1.0).items()}
RECIPES |= {
    # Biases and norms have a rate of their own, as in the paper.
    "barlow_twins": dataclasses.replace(
        RECIPES["barlow_twins"],
        optimizer=Lars(learning_rate=0.2, weight_decay=1e-6, bias_and_norm_rate=0.0048),
    ),
    "cacr_moco_v3": dataclasses.replace(RECIPES["cacr_moco_v3"], augmentation=LARGE_CROPS),
    # The rate of LARS is far too large for a trained temperature.
    "clip": dataclasses.replace(RECIPES["clip"], optimizer=TOWERS),
    # It needs patch tokens.
    "ibot": dataclasses.replace(
        RECIPES["ibot"],
        optimizer=TOWERS,
        encoder=ViT(size="small", frozen_patch_embedding=True, dtype="bfloat16"),
    ),
    "moco_v3": dataclasses.replace(RECIPES["moco_v3"], augmentation=LARGE_CROPS),
    "ressl": dataclasses.replace(RECIPES["ressl"], augmentation=WEAK_KEYS),
    # Weights of 1,000 make large gradients.
    "sep_clr": dataclasses.replace(RECIPES["sep_clr"], optimizer=TOWERS),
    "siglip": dataclasses.replace(RECIPES["siglip"], optimizer=TOWERS),
}


def config(method: str = "sim_affinity") -> Config:
    recipe = RECIPES[method]
    views = recipe.augmentation or AUGMENTATIONS["byol"]
    return Config(
        method=recipe.method,
        encoder=recipe.encoder or ResNet(depth=50, stem="imagenet", dtype="bfloat16"),
        data=IMAGES,
        augmentation=with_views(views, recipe.method.views),
        optimizer=recipe.optimizer or Lars(learning_rate=0.6, weight_decay=1e-6),
        epochs=100,
        batch_size=4096,
        warmup_epochs=10.0,
        checkpoint_every=5,
        observe_every=500,
    )


if __name__ == "__main__":
    show(RECIPES, config)
