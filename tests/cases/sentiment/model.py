"""One hidden layer on TF-IDF features."""

from torch import Tensor, nn


class SentimentNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(4932, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 2)
        )

    def forward(self, tfidf: Tensor) -> Tensor:
        return self.network(tfidf)


def build() -> SentimentNet:
    return SentimentNet()
