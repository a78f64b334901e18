"""MIO on CIFAR-10: ResNet-18, 200 epochs at batch 512.

    jaxclr train experiments/cifar10_mio.py --data.dir DIR

The recipe, and what DIR is, are in cifar10.py.

Time: not run yet. Accuracy: not run yet; one measured on pixels that were re-encoded as JPEG will say so.
"""

import cifar10

from jaxclr.training import Config


def config(method: str = "mio") -> Config:
    return cifar10.config(method)
