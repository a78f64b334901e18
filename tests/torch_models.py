"""ResNets and ViTs in PyTorch with the names of torchvision and timm, and random weights."""

import torch
from torch import nn
from torch.nn import functional as F


def conv(width_in, width, size, stride=1):
    return nn.Conv2d(width_in, width, size, stride, size // 2, bias=False)


class Basic(nn.Module):
    expansion = 1

    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(width_in, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = None
        if stride > 1 or width_in != width:
            self.downsample = nn.Sequential(conv(width_in, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(width_in, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride > 1 or width_in != 4 * width:
            self.downsample = nn.Sequential(
                conv(width_in, 4 * width, 1, stride), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, depth, stem, classes=10):
        super().__init__()
        block, counts = {
            18: (Basic, (2, 2, 2, 2)),
            34: (Basic, (3, 4, 6, 3)),
            50: (Bottleneck, (3, 4, 6, 3)),
        }[depth]
        self.conv1 = conv(3, 64, 7, 2) if stem == "imagenet" else conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        width_in = 64
        for stage, count in enumerate(counts):
            width, blocks = 64 * 2**stage, []
            for index in range(count):
                blocks.append(block(width_in, width, 2 if stage and not index else 1))
                width_in = width * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(width_in, classes)

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return x.mean((2, 3))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, n, width = x.shape
        q, k, v = (
            self.qkv(x).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(b, n, width))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class ViT(nn.Module):
    """With positions of its own, or those given."""

    def __init__(self, width, heads, patch, side, positions=None, classes=10):
        super().__init__()
        tokens = 1 + (side // patch) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(
            torch.zeros(1, tokens, width) if positions is None else positions
        )
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(12)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.norm(self.blocks(x))[:, 0]


def moco_positions(grid, width):
    """MoCo v3's build_2d_sincos_position_embedding, from its description."""
    omega = 1 / 10000 ** (torch.arange(width // 4) / (width // 4))
    first, second = torch.meshgrid(
        torch.arange(grid).float(), torch.arange(grid).float(), indexing="ij"
    )
    first, second = (torch.outer(place.flatten(), omega) for place in (first, second))
    places = torch.cat([first.sin(), first.cos(), second.sin(), second.cos()], 1)
    return torch.cat([torch.zeros(1, width), places])[None]


@torch.no_grad()
def randomise(model, keep=()):
    """Random weights, scales and running statistics; outputs neither vanish nor explode."""
    generator = torch.Generator().manual_seed(0)
    random = lambda like: torch.randn(like.shape, generator=generator)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name in keep or name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_var"):
            value.copy_(0.5 + random(value).abs())
        elif value.ndim > 1:
            fan_in = value[0].numel() if value.ndim != 3 else 4
            value.copy_(random(value) * fan_in**-0.5)
        else:
            value.copy_(0.2 * random(value) + (0.7 if name.endswith("weight") else 0.0))
    return model.eval()
