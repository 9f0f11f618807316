"""Batch norms folded into the convolutions before them."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(model: nn.Module, image_size: int) -> nn.Module:
    """Return a copy in eval mode whose convolutions do the work of the batch norms after them.

    Which batch norm follows which convolution is seen by running the model once, on an image of
    that size. A batch norm that follows something else, or a convolution that runs more than once,
    stays as it is. An identity stands in the place of a folded batch norm.

    >>> folded = fold_batch_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 8)
    >>> [type(module).__name__ for module in folded]
    ['Conv2d', 'Identity']
    """
    folded = copy.deepcopy(model).eval()
    for convolution, norm in _pairs(folded, image_size):
        fused = fuse_conv_bn_eval(
            folded.get_submodule(convolution),  # type: ignore[type-var]
            folded.get_submodule(norm),  # type: ignore[arg-type]
        )
        _replace(folded, convolution, fused)
        _replace(folded, norm, nn.Identity())
    return folded


def _pairs(model: nn.Module, image_size: int) -> list[tuple[str, str]]:
    outputs: list[tuple[str, Tensor]] = []
    pairs: list[tuple[str, str]] = []

    def after_convolution(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs.append((name, output))

    def before_norm(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        pairs.extend((convolution, name) for convolution, of in outputs if of is inputs[0])

    device = next(model.parameters()).device
    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                hooks.enter_context(module.register_forward_hook(partial(after_convolution, name)))
            elif isinstance(module, nn.BatchNorm2d):
                hooks.enter_context(module.register_forward_pre_hook(partial(before_norm, name)))
        model(torch.zeros(1, 3, image_size, image_size, device=device))
    runs = [name for name, _ in outputs]
    return [(convolution, norm) for convolution, norm in pairs if runs.count(convolution) == 1]


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
