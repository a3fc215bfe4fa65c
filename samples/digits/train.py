"""Train a small CNN on handwritten digits and export it to ONNX next to this script.

Data are the 1797 images of 8x8 pixels that scikit-learn bundles; nothing is downloaded. Writes `digits.onnx` (input
`image` f32[N,1,8,8] in 0..1, output `logits` f32[N,10]) and `test_images.npz` (`images` f32[64,1,8,8], `labels`
i64[64], all held out). Needs torch, scikit-learn and onnx; the compiler itself needs none of the first two.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).parent
SEED = 7
EPOCHS = 60
BATCH = 64
MIN_TEST_ACCURACY = 0.97


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return training images, training labels, test images and test labels; images are f32[n,1,8,8] in 0..1."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=0.2, random_state=SEED, stratify=labels
    )
    return torch.tensor(train_x), torch.tensor(train_y), torch.tensor(test_x), torch.tensor(test_y)


def network() -> nn.Sequential:
    """Return the untrained network: Conv-BatchNorm-ReLU-MaxPool twice, then one linear layer (about 6,200 weights)."""
    layers = {
        "conv1": nn.Conv2d(1, 16, kernel_size=3, padding=1),
        "norm1": nn.BatchNorm2d(16),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(16, 32, kernel_size=3, padding=1),
        "norm2": nn.BatchNorm2d(32),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "classifier": nn.Linear(32 * 2 * 2, 10),
    }
    return nn.Sequential(OrderedDict(layers))


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return `images` moved together by at most one pixel each way, to keep so small a network from memorising."""
    dy, dx = (int(step) - 1 for step in torch.randint(0, 3, (2,), generator=generator))
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    return padded[:, :, 1 + dy : 9 + dy, 1 + dx : 9 + dx]


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Fit `model` in place with AdamW and a cosine schedule, deterministically."""
    generator = torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            optimiser.zero_grad()
            logits = model(shifted(images[batch], generator))
            nn.functional.cross_entropy(logits, labels[batch]).backward()
            optimiser.step()
        schedule.step()
    model.eval()


def export(model: nn.Module) -> Path:
    """Write `digits.onnx` with BatchNormalization kept as its own node, and return its path."""
    path = HERE / "digits.onnx"
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, 8, 8),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        opset_version=17,
        # Keeping the training-time graph leaves the fold of BatchNormalization into Conv to the compiler.
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        dynamo=False,
    )
    onnx.checker.check_model(path, full_check=True)
    return path


def main() -> None:
    """Train, check the accuracy, export, and store held-out images; raise RuntimeError if the network is too weak."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    train_x, train_y, test_x, test_y = digits()
    model = network()
    train(model, train_x, train_y)
    with torch.no_grad():
        accuracy = (model(test_x).argmax(1) == test_y).float().mean().item()
    print(f"test accuracy {accuracy:.4f} on {len(test_x)} images")
    if accuracy < MIN_TEST_ACCURACY:
        raise RuntimeError(f"test accuracy {accuracy:.4f} is below {MIN_TEST_ACCURACY}")
    path = export(model)
    np.savez_compressed(HERE / "test_images.npz", images=test_x[:64].numpy(), labels=test_y[:64].numpy())
    print(f"wrote {path.name}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
