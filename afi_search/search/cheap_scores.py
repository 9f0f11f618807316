"""What can be said of a network before it is trained, from a few dozen images in a second or two.

Each is a published proxy for the trained accuracy; more is better. How far they can be trusted is
what `afi_search.search.rank` tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from afi_search.data import Split
from afi_search.data.source import Batch
from afi_search.data.tensor_source import Normalise, normalised_batches
from afi_search.nn import build
from afi_search.nn.ops.batch_norm import BatchNorm2d
from afi_search.space import Architecture
from afi_search.study.study import Study
from afi_search.train import seed_everything
from afi_search.train.supernet import calibration_images

Score = Callable[[Sequence[Architecture]], Iterable[dict[str, float]]]
"""Returns the scores of each architecture by name, and the seconds that they took."""

IMAGES = 64
PARTS = 4
"""Batches that the images are divided into, for the spread of gradients."""


def score_cheaply(study: Study, score: Callable[[], Score]) -> None:
    """Enter the scores of the untrained networks of a study's full trials in its ledger, once.

    The study is held by this process; `score` is called where some are to score.
    """
    records, known = study.records(), study.ledger.scores()
    scored = set(known.index[known["synflow"].notna()]) if "synflow" in known else set()
    full = records.loc[records["full"], "architecture"].unique()
    if left := [Architecture.parse(text) for text in full if text not in scored]:
        study.ledger.note_scores(dict(zip(left, score()(left), strict=True)))


def cheap_batch(data: Split, device: torch.device) -> Batch:
    """Return the images and labels that are enough for `cheap_scores`."""
    normalise = Normalise(data.spec.mean, data.spec.std, device)
    (batch,) = normalised_batches(calibration_images(data, IMAGES), normalise, IMAGES)
    return batch


def cheap_scores(
    architecture: Architecture, images: Tensor, labels: Tensor, *, num_classes: int, seed: int = 0
) -> dict[str, float]:
    """Return the scores of an untrained network by name.

    Args:
        images: N x 3 x H x W, normalised; N a multiple of `PARTS`, 64 for instance.
        labels: N, int64.
        seed: of the weights; sets torch's global generators.
    """
    seed_everything(seed)
    model = build(architecture, num_classes=num_classes, image_size=images.shape[-1])
    model = model.to(images.device).to(memory_format=torch.channels_last)
    return {
        "naswot": naswot(model, images),
        "zico": zico(model, images, labels),
        "synflow": synflow(model, images.shape[-1]),
    }


def naswot(model: nn.Module, images: Tensor) -> float:
    """Log-determinant of how alike the images' activation patterns are.

    Which units an image activates is read after every batch norm, whether or not ReLU follows.
    Source: Mellor et al. 2021, Neural Architecture Search without Training.
    """
    alike = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def count(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        signs = (output > 0).flatten(1).float() * 2 - 1
        alike.add_((signs @ signs.T + signs.shape[1]) / 2)

    norms = [module for module in model.modules() if isinstance(module, BatchNorm2d)]
    hooks = [norm.register_forward_hook(count) for norm in norms]
    try:
        with torch.no_grad():
            model.train()(images)
    finally:
        for hook in hooks:
            hook.remove()
    return float(torch.linalg.slogdet(alike).logabsdet)


def zico(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Sum over layers of the log of summed |gradients|, mean over spread between batches.

    Source: Li et al. 2023, ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients.
    """
    layers = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    gradients = []
    for part, of in zip(images.chunk(PARTS), labels.chunk(PARTS), strict=True):
        loss = cross_entropy(model.train()(part), of)
        gradients.append([g.abs() for g in torch.autograd.grad(loss, layers)])
    total = 0.0
    for layer in map(torch.stack, zip(*gradients, strict=True)):
        mean, deviation = layer.mean(0), layer.std(0, correction=0)
        ratio = float((mean / deviation)[deviation > 0].sum())
        total += math.log(ratio) if ratio > 0 else 0.0
    return total


def synflow(model: nn.Module, image_size: int) -> float:
    """Log of the sum of |weight x gradient| of the network with absolute weights, on ones.

    In evaluation mode and double precision, so that the model's weights are changed for good.
    Source: Tanaka et al. 2020, Pruning neural networks without any data by iteratively conserving
    synaptic flow.
    """
    model.double().eval()
    weights = list(model.parameters())
    with torch.no_grad():
        for weight in weights:
            weight.abs_()
    ones = torch.ones(1, 3, image_size, image_size, dtype=torch.float64, device=weights[0].device)
    flows = torch.autograd.grad(model(ones).sum(), weights, allow_unused=True)
    flow = sum(
        float((weight.detach() * flow).abs().sum())
        for weight, flow in zip(weights, flows, strict=True)
        if flow is not None
    )
    return math.log(flow)
