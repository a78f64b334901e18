"""Encoders and heads: frozen specs whose `build(axis_name)` returns a Flax Linen module."""

from jaxclr.encoders.conv import SmallConv as SmallConv
from jaxclr.encoders.custom import Copies as Copies
from jaxclr.encoders.custom import Nnx as Nnx
from jaxclr.encoders.custom import build_encoder as build_encoder
from jaxclr.encoders.custom import check_encoder as check_encoder
from jaxclr.encoders.heads import Mlp as Mlp
from jaxclr.encoders.heads import SideBySide as SideBySide
from jaxclr.encoders.layers import AxisName as AxisName
from jaxclr.encoders.layers import Precision as Precision
from jaxclr.encoders.layers import Remat as Remat
from jaxclr.encoders.resnet import ResNet as ResNet
from jaxclr.encoders.vit import ViT as ViT

Encoder = ResNet | ViT | SmallConv
"""The encoders of this library; `check_encoder` documents which other objects are accepted."""

ENCODERS: dict[str, Encoder] = {
    "resnet18": ResNet(depth=18),
    "resnet34": ResNet(depth=34),
    "resnet50": ResNet(depth=50, stem="imagenet"),
    "vit_small": ViT(size="small"),
    "vit_base": ViT(size="base"),
    "vit_large": ViT(size="large"),
    "vit_huge": ViT(size="huge"),
    "vit_giant": ViT(size="giant"),
    "dinov2_small": ViT("small", patch=14, heads=6, positions="learned", layer_scale=1e-5),
    "dinov2_base": ViT("base", patch=14, positions="learned", layer_scale=1e-5),
    "dinov2_large": ViT("large", patch=14, positions="learned", layer_scale=1e-5),
    "dinov2_giant": ViT("giant", patch=14, positions="learned", layer_scale=1e-5),
    "small_conv": SmallConv(),
}
"""The encoders by the names that `--encoder` takes."""
