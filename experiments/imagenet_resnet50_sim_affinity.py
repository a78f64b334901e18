"""SimAffinity on ImageNet: ResNet-50, 100 epochs at batch 4096.

    jaxclr train experiments/imagenet_resnet50_sim_affinity.py --data.dir DIR

The recipe, what DIR is, and how images that do not fit in memory are streamed are in imagenet.py.

Time: not run yet. Accuracy: not run yet.
"""

import imagenet

from jaxclr.training import Config


def config(method: str = "sim_affinity") -> Config:
    return imagenet.resnet50(method)
