"""Accuracy on images that were held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from afi_search.data.dataset import ImageSet
from afi_search.train.augment import Normalise
from afi_search.train.precision import autocast_dtype

CPU_BATCH = 100
DEVICE_BATCH = 1000


@dataclass(frozen=True)
class Evaluation:
    """How a model did.

    Attributes:
        accuracy: the fraction of images whose highest output is the label's, 0 to 1.
        loss: mean cross-entropy.
    """

    accuracy: float
    loss: float


def evaluate(
    model: nn.Module,
    images: ImageSet,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    device: torch.device,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    batch_size: int | None = None,
) -> Evaluation:
    """Evaluate `model`, which is on `device`, on every image, in eval mode.

    The modes of the model's modules are as before afterwards. Without a batch size, the CPU gets
    batches whose features stay in its cache, other devices batches that fill them.
    """
    batch_size = batch_size or (CPU_BATCH if device.type == "cpu" else DEVICE_BATCH)
    images = images.to(device)
    normalise = Normalise(mean, std, device)
    dtype = autocast_dtype(precision, device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            for start in range(0, len(images), batch_size):
                labels = images.labels[start : start + batch_size]
                logits = model(normalise(images.images[start : start + batch_size])).float()
                correct += (logits.argmax(1) == labels).sum()
                loss += nn.functional.cross_entropy(logits, labels, reduction="sum")
    finally:
        for module, training in modes:
            module.training = training
    return Evaluation(correct.item() / len(images), loss.item() / len(images))
