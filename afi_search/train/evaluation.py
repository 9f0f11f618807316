"""Accuracy on images that were held out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from afi_search.capture import Step, captured
from afi_search.data.source import Batch
from afi_search.space.fields import PrecisionSetting
from afi_search.train.precision import autocast_dtype

TOP = 5


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a model on a set of images, 0 to 1.

    The share whose label is the highest output, and among the five highest.
    """

    accuracy: float
    top5: float


class Evaluator:
    """Evaluates a model on batches of normalised images, as often as it is called.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    >>> evaluate = Evaluator(model, device=torch.device("cpu"), precision="fp32")
    >>> batch = torch.randn(8, 3, 2, 2), torch.zeros(8, dtype=torch.int64)
    >>> 0 <= evaluate([batch]).accuracy <= 1
    True

    Args:
        model: on `device`; its tensors must stay where they are.
        device: of the batches as well.
        precision: to compute in.
        capture: whether batches as large as the very first one are run as a CUDA graph from the
            second one on.
        world: processes that evaluate a part of the images each; all get the whole's figures.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: torch.device,
        precision: PrecisionSetting = "auto",
        capture: bool = False,
        world: int = 1,
    ) -> None:
        self._model = model
        self._device = device
        self._dtype = autocast_dtype(precision, device)
        self._capture = capture
        self._world = world
        self._counts = torch.zeros(3, dtype=torch.int64, device=device)
        self._size: torch.Size | None = None
        self._replay: Step | None = None

    def __call__(self, batches: Iterable[Batch]) -> Evaluation:
        """Evaluate in eval mode; the modes of the model's modules are as before afterwards."""
        self._counts.zero_()
        training = [module for module in self._model.modules() if module.training]
        if training:
            self._model.eval()
        try:
            with torch.no_grad():
                for images, labels in batches:
                    self._add(images, labels)
        finally:
            for module in training:
                module.training = True
        if self._world > 1:
            dist.all_reduce(self._counts)
        first, among, count = self._counts.tolist()
        return Evaluation(first / count, among / count)

    def _add(self, images: Tensor, labels: Tensor) -> None:
        run: Step = self._score
        if self._capture and images.shape == self._size:
            if self._replay is None:
                self._replay = captured(self._score, (images, labels), [self._counts])
            run = self._replay
        self._size = self._size or images.shape
        run(images, labels)

    def _score(self, images: Tensor, labels: Tensor) -> None:
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            logits = self._model(images).float()
        highest = logits.topk(min(TOP, logits.shape[1])).indices
        self._counts[0].add_((logits.argmax(1) == labels).sum())
        self._counts[1].add_((highest == labels[:, None]).sum())
        self._counts[2].add_(len(labels))
