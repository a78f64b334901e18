"""Any method on ImageNet with a ViT-Small, 300 epochs at batch 1024, as in MoCo v3.

    jaxclr train experiments/imagenet_vit_small.py --method sim_affinity --data.dir DIR
    python experiments/imagenet_vit_small.py                        the table of all methods

See imagenet.py for DIR, for streaming, and for the differences from the official code. MoCo v3,
CACR with MoCo v3 and UniCLR's methods have MoCo v3's heads for a ViT. The other papers train no
ViT: their methods have the heads of a ResNet-50, and AdamW has one rate for all parameters.
"""

import dataclasses

import imagenet
from recipes import Recipe, show

from jaxclr.augment import AUGMENTATIONS, with_views
from jaxclr.encoders import ViT
from jaxclr.methods import METHODS, Method
from jaxclr.training import AdamW, Config


def heads(method: Method) -> Method:
    """The method, with MoCo v3's heads for a ViT if it has those for a ResNet-50.

    They have three layers in the projector and two last norms.
    """
    if method.projector != Method.projector:
        return method
    method = method.replace(
        projector=dataclasses.replace(method.projector, layers=3, last_norm=True)
    )
    if method.predictor is not None:
        method = method.replace(predictor=dataclasses.replace(method.predictor, last_norm=True))
    return method


# MoCo v3 with a ViT has temperature 0.2. A measured recipe has its time and accuracy here.
RECIPES = {name: Recipe(heads(method)) for name, method in imagenet.at(0.2).items()}


def config(method: str = "sim_affinity") -> Config:
    return dataclasses.replace(
        imagenet.config(method),
        method=RECIPES[method].method,
        augmentation=with_views(AUGMENTATIONS["byol"], METHODS[method].views),
        encoder=ViT(size="small", frozen_patch_embedding=True, dtype="bfloat16"),
        optimizer=AdamW(learning_rate=1.5e-4, weight_decay=0.1),
        epochs=300,
        batch_size=1024,
        warmup_epochs=40.0,
    )


if __name__ == "__main__":
    show(RECIPES, config)
