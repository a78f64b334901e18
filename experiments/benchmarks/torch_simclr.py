"""SimCLR on CIFAR-10 in plain PyTorch, which gpu.py compares with jaxclr.

ResNet-18 without stem pool, channels last, autocast to bfloat16, views drawn on the device from
uint8, torch.compile for the network and the views where it works, no synchronization within a run.
Heads, loss, optimizer and views are those of the recipe `simclr` in cifar10.py, except that the
parts of the color jitter have a fixed order, which is faster than an order for each image.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

TEMPERATURE = 0.5
LUMA = (0.299, 0.587, 0.114)


class Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        nn.init.zeros_(self.bn2.weight)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def network(width: int, blocks: tuple[int, ...], hidden: int, out: int) -> nn.Module:
    """Encoder and projector; (64, (2, 2, 2, 2), 512, 128) are ResNet-18's and the recipe's."""
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    body: list[nn.Module] = []
    inputs = width
    for stage, count in enumerate(blocks):
        for index in range(count):
            outputs = width * 2**stage
            body.append(Block(inputs, outputs, 2 if stage and not index else 1))
            inputs = outputs
    encoder = [*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    hidden_layer = [nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()]
    last_norm = nn.BatchNorm1d(out)
    last_norm.bias.requires_grad_(False)  # SimCLR's has a scale only
    made = nn.Sequential(*encoder, *hidden_layer, nn.Linear(hidden, out, bias=False), last_norm)
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return made


def view(images: torch.Tensor) -> torch.Tensor:
    """A random view of uint8 images [b, 3, h, h]: crop with flip, jitter, grayscale, normalize."""
    b, device = len(images), images.device
    uniform = lambda low, high: torch.empty(b, device=device).uniform_(low, high)
    coin = lambda probability: (torch.rand(b, device=device) < probability)[:, None, None, None]
    area, ratio = uniform(0.2, 1.0), uniform(math.log(3 / 4), math.log(4 / 3)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    mirror = torch.where(torch.rand(b, device=device) < 0.5, -1.0, 1.0)
    zero = torch.zeros(b, device=device)
    affine = torch.stack(
        [
            torch.stack([mirror * width, zero, uniform(-1, 1) * (1 - width)], 1),
            torch.stack([zero, height, uniform(-1, 1) * (1 - height)], 1),
        ],
        1,
    )
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    x = F.grid_sample(images.float() / 255, grid, padding_mode="border", align_corners=False)
    shaped = lambda value: value[:, None, None, None]
    factor = lambda strength: shaped(uniform(1 - strength, 1 + strength))
    jittered = (x * factor(0.4)).clamp(0, 1)
    jittered = _blend(jittered, _gray(jittered).mean((2, 3), keepdim=True), factor(0.4))
    jittered = _blend(jittered, _gray(jittered), factor(0.4))
    jittered = _turn_hue(jittered, shaped(uniform(-0.1, 0.1)))
    x = torch.where(coin(0.8), jittered, x)
    x = torch.where(coin(0.2), _gray(x), x)
    mean = torch.tensor((0.4914, 0.4822, 0.4465), device=device)[None, :, None, None]
    std = torch.tensor((0.247, 0.2435, 0.2616), device=device)[None, :, None, None]
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def nt_xent(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    z = F.normalize(torch.cat([one, other]).float(), dim=1)
    logits = z @ z.T / TEMPERATURE
    logits.fill_diagonal_(-torch.inf)
    b = len(one)
    return F.cross_entropy(logits, torch.arange(2 * b, device=z.device).roll(b))


class SimClr:
    """The loop.

    Args:
      images: uint8 [N, 3, h, h], on the device.
      batch_size: images of a step.
      compiled: whether to try torch.compile.
      shape: of the network.
    """

    def __init__(
        self, images: torch.Tensor, *, batch_size: int, compiled: bool, shape: dict[str, Any]
    ):
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        self.images, self.batch_size = images, batch_size
        self.device = images.device
        self.network = network(**shape).to(self.device, memory_format=torch.channels_last)
        peak = 0.03 * batch_size / 256
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=peak, momentum=0.9, weight_decay=5e-4
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 100_000)
        self.embed, self.view, self.compile = self.network, view, "off"
        if compiled:
            self.embed, self.view, self.compile = (
                torch.compile(self.network),
                torch.compile(view),
                "on",
            )
            try:
                self.run(1)
            except Exception as error:  # the compiler's back ends raise their own
                self.embed, self.view = self.network, view
                self.compile = f"failed: {str(error).strip().splitlines()[0]}"

    def run(self, steps: int) -> float:
        """The last loss of a number of steps, after the device has finished them."""
        loss = torch.zeros(())
        for _ in range(steps):
            rows = torch.randint(len(self.images), (self.batch_size,), device=self.device)
            batch = self.images[rows]
            pair = [self.view(batch) for _ in range(2)]
            with torch.autocast(self.device.type, torch.bfloat16):
                pair = [self.embed(view) for view in pair]
            loss = nt_xent(*pair)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
        return loss.item()


def _gray(x: torch.Tensor) -> torch.Tensor:
    red, green, blue = x.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def _blend(x: torch.Tensor, base: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return (factor * x + (1 - factor) * base).clamp(0, 1)


def _turn_hue(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """The hue of HSV turned, with saturation and value kept."""
    red, green, blue = x.unbind(1)
    largest = x.amax(1)
    chroma = largest - x.amin(1)
    lead = torch.where(
        red == largest, green - blue, torch.where(green == largest, blue - red, red - green)
    )
    sector = torch.where(red == largest, 0.0, torch.where(green == largest, 2.0, 4.0))
    hue = lead / torch.where(chroma > 0, chroma, 1.0) + sector + 6 * shift[:, 0]
    planes = []
    for n in (5, 3, 1):
        k = torch.remainder(hue + n, 6)
        planes.append(largest - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(planes, 1)
