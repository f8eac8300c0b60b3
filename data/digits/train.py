"""Trains the bundled case: scikit-learn's handwritten digits, "is it an 8?".

Writes  weights.pth, inputs.npy and labels.npy beside this file
Usage   .venv/bin/python data/digits/train.py
Prints  the accuracy on the test half
"""

from pathlib import Path

import numpy as np
import torch
from model import build
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 0
EPOCHS = 12
HERE = Path(__file__).parent


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the same sums in the same order, so the same weights
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    labels = (digits.target == 8).astype(np.uint8)
    x, inputs, y, test_labels = train_test_split(
        images, labels, test_size=0.5, stratify=digits.target, random_state=SEED
    )
    model = build()
    train(model, torch.from_numpy(x), torch.from_numpy(y).float()[:, None])
    torch.save(model.state_dict(), HERE / "weights.pth")
    np.save(HERE / "inputs.npy", inputs)
    np.save(HERE / "labels.npy", test_labels)
    model.eval()
    with torch.inference_mode():
        verdicts = model(torch.from_numpy(inputs)).numpy()[:, 0] >= 0
    print(f"accuracy on {len(inputs)} test images: {(verdicts == test_labels).mean():.4f}")


def train(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Adam on the binary cross-entropy, in batches of 32."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loss = torch.nn.BCEWithLogitsLoss()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
