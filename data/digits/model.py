"""The network of the bundled case: one logit for "is it an 8?"."""

from torch import Tensor, nn


class DigitNet(nn.Module):
    """8x8 grey pixels, (n, 1, 8, 8) float32 in 0..1, to one logit, (n, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * width * 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.head(self.dropout(self.features(image).flatten(1)))
        return out


def build(width: int = 8) -> DigitNet:
    """The factory that case.toml names."""
    return DigitNet(width)
