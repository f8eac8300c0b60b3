"""Two convolutions and one linear layer, with an adaptive pool between."""

from torch import Tensor, nn
from torch.nn import functional


class DrowsyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5)
        self.conv2 = nn.Conv2d(8, 16, 5)
        self.fc3 = nn.Linear(576, 2)

    def forward(self, image: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(image)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.fc3(functional.adaptive_avg_pool2d(x, 6).flatten(1))


def build() -> DrowsyNet:
    return DrowsyNet()
