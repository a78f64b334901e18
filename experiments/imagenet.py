"""Any method on ImageNet, with a ResNet-50 (100 epochs, batch 4096) as in UniCLR's official code.

    jaxclr train experiments/imagenet.py --method sim_affinity --data.dir DIR

DIR is where TensorFlow Datasets has prepared imagenet2012 as array_record. A file per encoder and method stands beside
this one; the ViT-Small is `vit_small` below (300 epochs, batch 1024).

The decoded images, 244 GiB at 256 x 256, do not fit in memory: they are streamed, each cropped from its whole file by
--data.workers processes (None: a process for each core), and evaluated on the central square of 256. A subset works:
--data.source folder:PATH, with a --batch-size that it fills. Below --data.memory-limit it lives in memory, at 256 x 256;
--data.streaming always streams it too.

Settings are those of MoCo v3, which the official code follows. What differs from it: the affinity methods use scales
that do not depend on the batch size (see below), evaluation sees the whole central square of an image, AdamW does not
decay biases and norms, and bfloat16 takes the place of float16.

Time: not run yet. Accuracy: not run yet.
"""

import dataclasses

from jaxclr.augment import AUGMENTATIONS, with_views
from jaxclr.data import Data
from jaxclr.encoders import Encoder, ResNet, ViT
from jaxclr.methods import METHODS, Method
from jaxclr.steps.optimizers import Optimizer
from jaxclr.training import AdamW, Config, Lars

# Of ImageNet's channels, as the field has them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def config(method: str = "sim_affinity") -> Config:
    return resnet50(method)


def resnet50(method: str) -> Config:
    """ResNet-50 with LARS; heads are the methods' own, a momentum encoder's momentum rises from 0.99 (BYOL: 0.996)."""
    return _config(
        _scaled(METHODS[method](), temperature=1.0),
        ResNet(depth=50, stem="imagenet", dtype="bfloat16"),
        Lars(learning_rate=0.6, weight_decay=1e-6),
        epochs=100,
        batch_size=4096,
        warmup_epochs=10.0,
    )


def vit_small(method: str) -> Config:
    """ViT-Small with AdamW and MoCo v3's heads for it: three layers in the projector, a last norm in both heads."""
    chosen = _scaled(METHODS[method](), temperature=0.2)
    chosen = chosen.replace(projector=dataclasses.replace(chosen.projector, layers=3, last_norm=True))
    if chosen.predictor is not None:
        chosen = chosen.replace(predictor=dataclasses.replace(chosen.predictor, last_norm=True))
    return _config(
        chosen,
        ViT(size="small", frozen_patch_embedding=True, dtype="bfloat16"),
        AdamW(learning_rate=1.5e-4, weight_decay=0.1),
        epochs=300,
        batch_size=1024,
        warmup_epochs=40.0,
    )


def _scaled(method: Method, *, temperature: float) -> Method:
    """The method at a temperature, with scales that do not depend on the batch size."""
    if hasattr(method, "temperature"):
        method = method.replace(temperature=temperature)
    if hasattr(method, "symmetry_scale"):
        # Equal at a batch of 128 to the official asymmetry, which is not divided by the batch and has weight 0.01.
        method = method.replace(symmetry_scale="per_sample", symmetry_weight=0.01 * 128)
    if hasattr(method, "logit_divisor"):
        # The official code divides whitened affinities by the batch of a device, whose size is not known. They are at
        # most some 72 times a cosine at a width of 256: temperature 1 would leave them almost flat.
        method = method.replace(temperature=0.2, logit_divisor=float(method.projector.out))
    return method


def _config(
    method: Method,
    encoder: Encoder,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int,
    warmup_epochs: float,
) -> Config:
    return Config(
        method=method,
        encoder=encoder,
        data=Data(source="tfds:imagenet2012", image_size=256, channels="rgb", mean=MEAN, std=STD),
        augmentation=with_views(AUGMENTATIONS["byol"], method.views),
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        warmup_epochs=warmup_epochs,
        checkpoint_every=5,
        observe_every=500,
    )
