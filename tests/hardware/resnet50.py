"""A network of ResNet-50's size with seeded random weights: something to measure, not to use.

`subjects.py` makes a case of it: this file becomes its model.py. He et al. 2015 (arXiv 1512.03385),
with the stride on the 3x3 convolution; 25,557,032 parameters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = (3, 4, 6, 3)  # in each stage
WIDTHS = (64, 128, 256, 512)
GROWTH = 4
CLASSES = 1000
SEED = 50


class Block(nn.Module):
    """1x1, 3x3, 1x1, and what came in added to it."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * GROWTH
        self.conv1 = nn.Conv2d(given, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or given != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(given, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """(n, 3, height, width) float32 to (n, 1000) logits."""

    def __init__(self, counts: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
        )
        blocks, given = [], 64
        for stage, (count, width) in enumerate(zip(counts, WIDTHS, strict=True)):
            for i in range(count):
                blocks.append(Block(given, width, 2 if stage and not i else 1))
                given = width * GROWTH
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(given, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.stem(image)).mean((2, 3)))
        return out


def build(blocks: Sequence[int] = BLOCKS) -> ResNet:
    """The factory that the case names; its weights are whatever PyTorch draws."""
    return ResNet(blocks)


def seeded(blocks: Sequence[int] = BLOCKS) -> ResNet:
    """The model with the weights of SEED: values stay of one size from block to block, and no
    statistic of a batch norm is the idle one it starts with."""
    torch.manual_seed(SEED)
    model = build(blocks)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in")
        elif isinstance(module, nn.BatchNorm2d):
            scale = 0.5 if name.endswith("norm3") else 1.0
            nn.init.uniform_(module.weight, 0.8 * scale, 1.2 * scale)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.004)
    return model.eval()
