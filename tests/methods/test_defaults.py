"""Every method's defaults, and the ImageNet recipes, against one table of the papers.

Sources are papers and, where one is named, the authors' code. Where a default is not the paper's,
`ours` says why; the class's docstring says it to users.
"""

import dataclasses
import json
import pathlib
from typing import Any

import pytest
from tiny import tiny_config

from jaxclr.augment import AUGMENTATIONS, with_views
from jaxclr.encoders import Mlp
from jaxclr.methods import (
    METHODS,
    Imported,
    MomentumEncoder,
    Shared,
    SimClr,
    SimSiam,
    StopGradient,
)
from jaxclr.runs.config import from_json, to_json
from jaxclr.runs.experiments import load_experiment
from jaxclr.training import AdamW, Lars

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"


def head(layers, hidden, out, norm=True, bias=False, last="none"):
    """A head: last is the last norm, "none", "plain" (no parameters), "scale" or "both"."""
    affine = last if last in ("scale", "both") else "none"
    return Mlp(layers, hidden, out, last != "none", norm, bias, affine)


# Linear layers before a norm have no bias here, whatever the code: it has no effect.
SIMCLR_HEAD = head(2, 2048, 128, last="scale")
MOCO_V2_HEAD = head(2, 2048, 128, norm=False, bias=True)
MOCO_V3_HEAD, MOCO_V3_PREDICTOR = head(2, 4096, 256, last="plain"), head(2, 4096, 256)
SIMSIAM_HEAD, SIMSIAM_PREDICTOR = head(3, 2048, 2048, last="plain"), head(2, 512, 2048, bias=True)
ALEXNET_HEAD = head(2, 4096, 128, bias=True)  # the last layers of its encoder
TRIP_HEAD = head(3, 2048, 2048, last="both")
CONSTANT = MomentumEncoder(0.999, ramp=False)
RISING = MomentumEncoder(0.99)
MOCO_V3_LARS = Lars(0.6, weight_decay=1e-6)
TOWERS_ADAMW = AdamW(1.5e-4, weight_decay=0.1)


@dataclasses.dataclass(frozen=True)
class Row:
    """What a paper has; the last four are of its ImageNet run with a ResNet-50."""

    source: str
    projector: Mlp
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)  # all other fields
    predictor: Mlp | None = None
    target: Any = Shared()
    ours: str = ""
    imagenet: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields that differ there
    optimizer: Any = MOCO_V3_LARS  # imagenet.py's own, but for papers with rates by part
    smallest_crop: float = 0.08  # BYOL's augmentation, but for MoCo v3
    vit: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields that differ with a ViT


PER_SAMPLE = {"symmetry_scale": "per_sample", "symmetry_weight": 1.28}
OF_WHITENED = {**PER_SAMPLE, "temperature": 0.2, "logit_divisor": 256.0}
VIT_HEADS = {
    "projector": head(3, 4096, 256, last="plain"),
    "predictor": head(2, 4096, 256, last="plain"),
}
PLAIN_VIT_HEAD = {"projector": VIT_HEADS["projector"]}
UNICLR = "arXiv:2211.14516, WenbinLee/UniCLR_built_on_MoCov3"
MOCO_V2 = "arXiv:2003.04297, facebookresearch/moco"
MOCO_V3 = Row(
    "arXiv:2104.02057, facebookresearch/moco-v3 CONFIG.md",
    MOCO_V3_HEAD,
    {"temperature": 1.0},
    MOCO_V3_PREDICTOR,
    RISING,
    smallest_crop=0.2,
    vit={"temperature": 0.2, **VIT_HEADS},
)
PCL_FIELDS = {
    "temperature": 0.2,
    "queue_size": 16_384,
    "clusters": (25_000, 50_000, 100_000),
    "negatives": 16_384,
    "warmup_epochs": 20,
    "iterations": 20,
}
AFFINITY = {"temperature": 1.0, "symmetry_weight": 0.01, "symmetry_scale": "frobenius"}

TABLE = {
    "align_uniform": Row(
        "arXiv:2005.10242, SsnL/align_uniform",
        ALEXNET_HEAD,
        {"alignment": 1.0, "uniformity": 1.0, "alpha": 2.0, "t": 2.0},
    ),
    "amcl": Row(
        "arXiv:2310.05615, LeiWangR/cl",
        head(2, 512, 128),
        {
            "heads": 3,
            "penalty": 1e-4,
            "least_temperature": 1e-5,
            "most_temperature": 2.0,
            "temperature_hidden": 128,
        },
        ours="the loss of all negatives; heads with BatchNorm",
    ),
    "barlow_twins": Row(
        "arXiv:2103.03230, facebookresearch/barlowtwins",
        head(3, 8192, 8192),
        {"off_diagonal": 0.0051},
        optimizer=Lars(0.2, weight_decay=1e-6, bias_and_norm_rate=0.0048),
    ),
    "byol": Row(
        "arXiv:2006.07733, deepmind-research/byol (1000 epochs; 0.99 for 100 and 300)",
        head(2, 4096, 256),
        predictor=head(2, 4096, 256),
        target=MomentumEncoder(0.996, update="after_update"),
        imagenet={"target": MomentumEncoder(0.99, update="after_update")},
    ),
    "byol_gsg": Row(
        "arXiv:2503.09058, bych-lee/gsg",
        SIMSIAM_HEAD,
        predictor=SIMSIAM_PREDICTOR,
        target=MomentumEncoder(0.99, ramp=False),
    ),
    "cacr": Row(
        "arXiv:2105.03746, JegZheng/CACR-SSL small_scale_experiments/cifar10",
        ALEXNET_HEAD,
        {"attraction": 1.0, "repulsion": 1.0, "t_positive": 1.0, "t_negative": 0.9, "debias": 0.0},
    ),
    "cacr_moco_v3": dataclasses.replace(
        MOCO_V3, source="arXiv:2105.03746, JegZheng/CACR-SSL imagenet_pretraining"
    ),
    "clip": Row(
        "arXiv:2103.00020, openai/CLIP, mlfoundations/open_clip",
        head(1, 4096, 512),
        {"temperature": 0.07, "largest_scale": 100.0},
        optimizer=TOWERS_ADAMW,
    ),
    "co2": Row(
        "arXiv:2010.02217, with MoCo v2",
        MOCO_V2_HEAD,
        {
            "temperature": 0.2,
            "queue_size": 65_536,
            "consistency_weight": 0.3,
            "consistency_temperature": 0.05,
        },
        target=CONSTANT,
    ),
    "dcl": Row("arXiv:2110.06848, with SimCLR", SIMCLR_HEAD, {"temperature": 0.1}),
    "dclw": Row("arXiv:2110.06848, with SimCLR", SIMCLR_HEAD, {"temperature": 0.1, "sigma": 0.5}),
    "dino": Row(
        "arXiv:2104.14294, facebookresearch/dino (temperatures of the paper; 0.04 in the code)",
        head(3, 2048, 256, norm=False, bias=True),
        {
            "prototypes": 65_536,
            "temperature": 0.1,
            "teacher_temperature": 0.07,
            "first_teacher_temperature": 0.04,
            "warmup_epochs": 30,
            "center_momentum": 0.9,
            "freeze_prototypes": 1251,
            "koleo_weight": 0.0,
        },
        target=MomentumEncoder(0.996, update="after_update"),
        ours="ReLUs in place of GELUs, as other heads here",
    ),
    "direct_copy": Row(
        "arXiv:2110.04947, facebookresearch/luckmatters byol_trainer.py (directcopy), without a "
        "command: eps and momentum are not confirmed",
        head(2, 512, 128, bias=True),
        {"eps": 0.3, "correlation_momentum": 0.5},
        target=MomentumEncoder(0.996, ramp=False, update="after_update"),
    ),
    "direct_pred": Row(
        "arXiv:2102.06810, facebookresearch/luckmatters ssl/real-dataset (STL-10, CIFAR-10)",
        head(2, 512, 128, bias=True),
        {"eps": 0.01, "correlation_momentum": 0.3},
        target=MomentumEncoder(0.996, ramp=False, update="after_update"),
        ours="the predictor of a step is made after its embeddings are counted, and not before",
    ),
    "frossl": Row(
        "arXiv:2310.02903, vturrisi/solo-learn scripts/pretrain/imagenet-100/frossl.yaml",
        head(3, 2048, 1024, bias=True),
        {"invariance": 1.0},
    ),
    "ft": Row(
        "arXiv:2108.02982, DTennant/CL-Visualizing-Feature-Transformation, with MoCo v2",
        MOCO_V2_HEAD,
        {"temperature": 0.2, "queue_size": 65_536, "extrapolation": 2.0, "interpolation": 1.6},
        target=CONSTANT,
    ),
    "hydra": Row(
        "arXiv:2410.18200, erow/vitookit",
        head(2, 2048, 256, last="plain"),
        {"temperature": 0.1, "gate_embedding": 512, "gate_hidden": 1024},
        ours="a last BatchNorm in place of a LayerNorm, as other heads here",
    ),
    "ibot": Row(
        "arXiv:2111.07832, bytedance/ibot (the README's command for a ViT-S)",
        head(3, 2048, 256, norm=False, bias=True),
        {
            "prototypes": 8192,
            "temperature": 0.1,
            "teacher_temperature": 0.07,
            "first_teacher_temperature": 0.04,
            "warmup_epochs": 30,
            "center_momentum": 0.9,
            "freeze_prototypes": 1251,
            "koleo_weight": 0.0,
            "patch_weight": 1.0,
            "mask_probability": 0.5,
            "mask_ratio": (0.1, 0.5),
        },
        target=MomentumEncoder(0.996, update="after_update"),
        optimizer=TOWERS_ADAMW,
        ours="ReLUs in place of GELUs, as other heads here",
    ),
    "lejepa": Row(
        "arXiv:2511.08544, rbalestr-lab/lejepa README.md, MINIMAL.md",
        head(3, 2048, 128, bias=True),
        {"weight": 0.05, "slices": 1024, "knots": 17, "t_max": 3.0},
        ours="the mean of all views, as in the example, and not of the global ones",
    ),
    "loco": Row(
        "arXiv:2008.01342, with SimCLR",
        SIMCLR_HEAD,
        {"temperature": 0.1, "decoder_blocks": 1},
        ours="a reconstruction: no official code was found",
    ),
    "mio": Row(
        "arXiv:2111.12664, miossl/miossl",
        head(2, 2048, 128, last="both"),
        {
            "temperature_positive": 0.5,
            "temperature_negative": 0.5,
            "mse_weight": 0.0,
            "bound": False,
        },
    ),
    "mmcr": Row(
        "arXiv:2303.03307, ThomasYerxa/mmcr pretrain_imagenet.py",
        head(3, 8192, 512),
        target=MomentumEncoder(0.99, ramp=False, update="after_update"),
    ),
    "moco_v2": Row(
        MOCO_V2, MOCO_V2_HEAD, {"temperature": 0.2, "queue_size": 65_536}, target=CONSTANT
    ),
    "moco_v3": MOCO_V3,
    "mv_dhel": Row(
        "arXiv:2507.06979, pakoromilas/Multi-View-CL (ImageNet-100; 0.1 on ImageNet-1k)",
        SIMCLR_HEAD,
        {"temperature": 0.5},
    ),
    "mv_info_nce": Row(
        "arXiv:2507.06979, pakoromilas/Multi-View-CL (ImageNet-100; 0.1 on ImageNet-1k)",
        SIMCLR_HEAD,
        {"temperature": 0.5},
    ),
    "nnbyol": Row(
        "arXiv:2104.14548, vturrisi/solo-learn; heads and momentum of BYOL",
        head(2, 4096, 256),
        {"queue_size": 98_304},
        predictor=head(2, 4096, 256),
        target=MomentumEncoder(0.996, update="after_update"),
        ours="the paper names it without settings",
    ),
    "nnclr": Row(
        "arXiv:2104.14548, vturrisi/solo-learn",
        head(3, 2048, 256, last="both"),
        {"temperature": 0.1, "queue_size": 98_304},
        predictor=head(2, 4096, 256, bias=True),
        target=StopGradient(),
    ),
    "pauc": Row(
        "arXiv:2210.10194, with PCL",
        MOCO_V2_HEAD,
        {
            **PCL_FIELDS,
            "alignment": 1.0,
            "uniformity": 1.0,
            "correlation": 1.0,
            "t": 2.0,
            "off_diagonal": 0.0051,
        },
        target=CONSTANT,
        ours="a reconstruction from the abstract",
    ),
    "pcl": Row("arXiv:2005.04966, salesforce/PCL", MOCO_V2_HEAD, PCL_FIELDS, target=CONSTANT),
    "ressl": Row(
        "arXiv:2107.09282, mingkai-zheng/ReSSL network/head.py",
        head(2, 4096, 512, norm=False, bias=True),
        {"temperature": 0.1, "teacher_temperature": 0.04, "queue_size": 131_072},
        target=CONSTANT,
        smallest_crop=0.2,
    ),
    "sep_clr": Row(
        "arXiv:2402.11928, neurospin-projects/2024_rlouiset_sep_clr cifar_mnist",
        head(2, 128, 32, bias=True),
        {
            "background": 0,
            "salient_weight": 1000.0,
            "background_weight": 1000.0,
            "joint_entropy_weight": 10.0,
        },
        ours="heads on representations of any width, not of 32",
        optimizer=TOWERS_ADAMW,
    ),
    "siglip": Row(
        "arXiv:2303.15343, google-research/big_vision (a ViT-B)",
        head(1, 4096, 768, bias=True),
        {"temperature": 0.1, "bias": -10.0},
        optimizer=TOWERS_ADAMW,
    ),
    "sim_affinity": Row(
        UNICLR,
        MOCO_V3_HEAD,
        AFFINITY,
        MOCO_V3_PREDICTOR,
        RISING,
        imagenet=PER_SAMPLE,
        vit={"temperature": 0.2, **PER_SAMPLE, **VIT_HEADS},
    ),
    "sim_siam": Row(
        "arXiv:2011.10566, facebookresearch/simsiam",
        SIMSIAM_HEAD,
        predictor=SIMSIAM_PREDICTOR,
        target=StopGradient(),
    ),
    "sim_siam_gsg": Row(
        "arXiv:2503.09058, bych-lee/gsg",
        SIMSIAM_HEAD,
        predictor=SIMSIAM_PREDICTOR,
        target=StopGradient(),
    ),
    "sim_trace": Row(UNICLR, MOCO_V3_HEAD, {"eps": 0.01}, MOCO_V3_PREDICTOR, RISING, vit=VIT_HEADS),
    "sim_trace_plain": Row(UNICLR, MOCO_V3_HEAD, {"eps": 0.01}, vit=PLAIN_VIT_HEAD),
    "sim_trace_running": Row(
        UNICLR, MOCO_V3_HEAD, {"eps": 0.01}, MOCO_V3_PREDICTOR, RISING, vit=VIT_HEADS
    ),
    "sim_whitening": Row(
        UNICLR,
        MOCO_V3_HEAD,
        {**AFFINITY, "eps": 0.01, "logit_divisor": None},
        MOCO_V3_PREDICTOR,
        RISING,
        imagenet=OF_WHITENED,
        vit={**OF_WHITENED, **VIT_HEADS},
    ),
    "sim_whitening_running": Row(
        UNICLR,
        MOCO_V3_HEAD,
        {**AFFINITY, "eps": 0.01, "logit_divisor": None},
        MOCO_V3_PREDICTOR,
        RISING,
        imagenet=OF_WHITENED,
        vit={**OF_WHITENED, **VIT_HEADS},
    ),
    "simclr": Row(
        "arXiv:2002.05709, google-research/simclr tf2/model.py", SIMCLR_HEAD, {"temperature": 0.1}
    ),
    "sup_con": Row(
        "arXiv:2004.11362, HobbitLong/SupContrast",
        MOCO_V2_HEAD,
        {"temperature": 0.07, "base_temperature": 0.07},
    ),
    "swav": Row(
        "arXiv:2006.09882, facebookresearch/swav",
        head(2, 2048, 128, bias=True),
        {
            "prototypes": 3000,
            "temperature": 0.1,
            "epsilon": 0.05,
            "iterations": 3,
            "freeze_prototypes": 313,
            "queue_size": 0,
            "queue_from": 15,
        },
    ),
    "tico": Row(
        "arXiv:2206.10698, sayannag/TiCo-pytorch",
        head(2, 4096, 256, bias=True),
        {"covariance_weight": 8.0, "covariance_momentum": 0.9},
        target=RISING,
    ),
    "trip": Row(
        "arXiv:2107.10419, WenbinLee/Trip-ROMA",
        TRIP_HEAD,
        {"margin": 1.0, "pairwise_weight": 8.0, "pairwise_temperature": 0.5},
        ours="ReLUs in place of leaky ones, as other heads here",
    ),
    "trip_roma": Row(
        "arXiv:2107.10419, WenbinLee/Trip-ROMA",
        TRIP_HEAD,
        {"margin": 1.0, "pairwise_weight": 8.0, "pairwise_temperature": 0.5, "renew_every": 10},
        ours="ReLUs in place of leaky ones, as other heads here",
    ),
    "uni_grad": Row(
        "arXiv:2112.05141, fundamentalvision/UniGrad project/model.py, configs/unigrad.py",
        head(3, 2048, 2048, bias=True),
        {"correlation_weight": 100.0, "correlation_momentum": 0.99},
        target=MomentumEncoder(0.996),
    ),
    "vibcreg": Row(
        "arXiv:2109.00783, ML4ITS/vibcreg",
        head(3, 4096, 4096, last="both"),
        {"invariance": 25.0, "variance": 25.0, "covariance": 200.0},
        ours="a last BatchNorm in place of iterative whitening",
    ),
    "vicreg": Row(
        "arXiv:2105.04906, facebookresearch/vicreg",
        head(3, 8192, 8192),
        {"invariance": 25.0, "variance": 25.0, "covariance": 1.0},
    ),
    "w_mse": Row(
        "arXiv:2007.06346, htdt/self-supervised (STL-10, Tiny ImageNet)",
        head(2, 1024, 128),
        {"whitening_size": 256, "whitening_iterations": 4, "shrinkage": 0.0},
        ours="no bias in the last layer: whitening removes it",
    ),
}


def settings(method):
    """All fields of a method, and the heads and target that are not fields."""
    fields = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    return {**fields, "predictor": method.predictor, "target": method.target}


def expected(row, **changes):
    heads = {"projector": row.projector, "predictor": row.predictor, "target": row.target}
    return {**row.fields, **heads, **changes}


def smallest_crops(config):
    return {view.crop_scale[0] for view in config.augmentation.views}


def test_the_table_has_every_method():
    assert list(TABLE) == sorted(METHODS)


@pytest.mark.parametrize("name", TABLE)
def test_defaults_are_the_papers(name):
    row = TABLE[name]
    assert settings(METHODS[name]()) == expected(row)
    doc = METHODS[name].__doc__
    assert row.source[:16] in doc
    assert not row.ours or "\n\n" in doc  # the reason


@pytest.mark.parametrize("name", TABLE)
def test_imagenet_recipes_are_the_papers(name):
    row, config = TABLE[name], load_experiment(EXPERIMENTS / "imagenet.py", method=name)
    assert settings(config.method) == expected(row, **row.imagenet)
    assert config.optimizer == row.optimizer
    assert smallest_crops(config) == {row.smallest_crop}
    assert len(config.augmentation.views) == METHODS[name].views


@pytest.mark.parametrize("name", TABLE)
def test_imagenet_recipes_with_a_vit(name):
    row, config = TABLE[name], load_experiment(EXPERIMENTS / "imagenet_vit_small.py", method=name)
    assert settings(config.method) == expected(row, **(row.vit or row.imagenet))
    assert config.optimizer == AdamW(1.5e-4, weight_decay=0.1)
    assert smallest_crops(config) == {0.08}


@pytest.mark.parametrize(
    "method",
    [
        SimClr(projector=Mlp(layers=2, hidden=12, out=8)),
        SimSiam(predictor=Mlp(layers=2, hidden=12, out=2048)),
        Imported(file="weights.npz"),
    ],
    ids=lambda method: type(method).__name__,
)
@pytest.mark.parametrize("version", ["0.2.0", None])
def test_runs_of_before_keep_their_heads(method, version):
    """They stored four fields of each head, and those of 0.1 heads that are not fields."""
    views = with_views(AUGMENTATIONS["digits"], method.views)
    config = dataclasses.replace(tiny_config(), method=method, augmentation=views)
    tree = json.loads(to_json(config))
    del tree["jaxclr"]
    if version:
        tree["jaxclr"] = version
    elif isinstance(method, Imported):
        tree["method"]["projector"] = dataclasses.asdict(method.projector)
    for name in ("projector", "predictor"):
        for later in ("norm", "bias", "last_affine"):
            (tree["method"].get(name) or {}).pop(later, None)
    assert from_json(json.dumps(tree)) == config
