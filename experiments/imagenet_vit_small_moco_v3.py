"""MoCo v3 on ImageNet: ViT-Small, 300 epochs at batch 1024.

    jaxclr train experiments/imagenet_vit_small_moco_v3.py --data.dir DIR

The recipe, what DIR is, and how images that do not fit in memory are streamed are in imagenet.py.

Time: not run yet. Accuracy: not run yet.
"""

import imagenet

from jaxclr.training import Config


def config(method: str = "moco_v3") -> Config:
    return imagenet.vit_small(method)
