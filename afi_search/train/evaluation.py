"""Accuracy on images that were held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from afi_search.data.dataset import ImageSet
from afi_search.train.augment import Normalise
from afi_search.train.capture import Step, captured
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


class Evaluator:
    """Evaluates a model, which is on `device`, on every image, as often as it is called.

    Without a batch size, the CPU gets batches whose features stay in its cache, other devices
    batches that fill them. On CUDA, full batches are captured as a graph when there are several.
    The model's tensors must stay where they are.
    """

    def __init__(
        self,
        model: nn.Module,
        images: ImageSet,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        batch_size: int | None = None,
    ) -> None:
        self._model = model
        self._images = images.to(device)
        self._device = device
        self._batch = batch_size or (CPU_BATCH if device.type == "cpu" else DEVICE_BATCH)
        self._normalise = Normalise(mean, std, device)
        self._dtype = autocast_dtype(precision, device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._run: Step | None = None

    def __call__(self) -> Evaluation:
        """Evaluate in eval mode; the modes of the model's modules are as before afterwards."""
        self._correct.zero_()
        self._loss.zero_()
        modes = [(module, module.training) for module in self._model.modules()]
        self._model.eval()
        try:
            with torch.no_grad():
                for start in range(0, len(self._images), self._batch):
                    self._add(start)
        finally:
            for module, training in modes:
                module.training = training
        count = len(self._images)
        return Evaluation(self._correct.item() / count, self._loss.item() / count)

    def _add(self, start: int) -> None:
        end = start + self._batch
        batch = self._images.images[start:end], self._images.labels[start:end]
        repeated = len(self._images) >= 2 * self._batch and end <= len(self._images)
        if self._device.type != "cuda" or not repeated:
            self._score(*batch)
            return
        if self._run is None:
            self._run = captured(self._score, batch, (self._correct, self._loss))
        self._run(*batch)

    def _score(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            logits = self._model(self._normalise(images)).float()
        self._correct += (logits.argmax(1) == labels).sum()
        self._loss += nn.functional.cross_entropy(logits, labels, reduction="sum")


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
    """Evaluate `model` once, as an `Evaluator` does."""
    return Evaluator(
        model,
        images,
        mean=mean,
        std=std,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )()
