"""The two contractions that AFI is made of, each in one pass over every feature.

`weighted_sum` makes R of the features, and the gradient of a feature of what its readers were
given; `channel_dots` makes the gradient of the weights. C++ on a CPU, Triton on a GPU, else torch.
All add up in float32 at least, whatever the features are.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from subprocess import SubprocessError
from types import ModuleType

import torch
from torch import Tensor

from afi_search.nn.ops import cpu
from afi_search.nn.ops.common import at_least_float32, empty


def weighted_sum(
    features: Sequence[Tensor],
    weights: Sequence[Tensor],
    start: Tensor | None = None,
    plus: Tensor | None = None,
    gate: tuple[Tensor, float] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return start + plus + sum_j weights[j] * features[j], lying as the first of them does.

    Args:
        features: B x C x H x W each; one or more, or none where there is `plus`.
        weights: B x C each, float32 or wider.
        start: B x C, as weights are.
        plus: B x C x H x W; it may be a slice of channels.
        gate: X and a ceiling; the result is zero where X is not between zero and the ceiling.
        out: what the result is written to, where there is no gate; it may be a slice of channels.
    """
    first = features[0] if plus is None else plus
    out = empty(first, first.shape[1]) if out is None else out
    others = [x for x in (plus, gate and gate[0]) if x is not None]
    if cpu.takes(out, *features, *others):
        weights = [w if w.stride(1) == 1 else w.contiguous() for w in weights]
        start = start if start is None else start.contiguous()
        x, ceiling = gate or (None, 0.0)
        fixed = map(cpu.feature, (out, plus, x))
        summed = cpu.terms(features, weights)
        cpu.run("weighted_sum", out, *fixed, cpu.array(start), summed, reals=[ceiling])
        return out
    if out.is_cuda and (cuda := _cuda()) is not None:
        cuda.weighted_sum(features, weights, start, plus, out)
    else:
        wide = at_least_float32(out.dtype)
        total = torch.zeros((), dtype=wide, device=out.device)
        for more in (plus, start if start is None else start[:, :, None, None]):
            total = total if more is None else total + more.to(wide)
        for feature, weight in zip(features, weights, strict=True):
            total = torch.addcmul(total, feature.to(wide), weight[:, :, None, None])
        out.copy_(total)
    return out if gate is None else torch.ops.aten.hardtanh_backward(out, gate[0], 0.0, gate[1])


def channel_dots(gradient: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Return the sums over the pixels of gradient * features[j], B x len(features) x C.

    Args:
        gradient: B x C x H x W.
        features: of the same shape, one or more.

    Returns:
        float32, or the features' own dtype where that is wider.
    """
    wide = at_least_float32(gradient.dtype)
    if gradient.is_cuda and (cuda := _cuda()) is not None:
        dots: Tensor = cuda.channel_dots(gradient, features)
        return dots
    if cpu.takes(gradient, *features):
        shape = (gradient.shape[0], len(features), gradient.shape[1])
        dots = torch.empty(shape, dtype=wide)
        given, read = cpu.feature(gradient), cpu.terms(features)
        cpu.run("channel_dots", gradient, given, cpu.array(dots), read)
        return dots
    factor = gradient.to(wide)
    return torch.stack([(factor * feature.to(wide)).sum((2, 3)) for feature in features], dim=1)


@cache
def _cuda() -> ModuleType | None:
    """Return Triton's kernels; None, after a warning, where Triton cannot make them run."""
    try:
        from afi_search.nn.ops import cuda

        one = torch.ones(1, 1, 1, 1, device="cuda")
        cuda.weighted_sum([one], [one[0, :, 0]], None, None, torch.empty_like(one))
    except (ImportError, OSError, RuntimeError, AssertionError, SubprocessError) as error:
        warnings.warn(
            "Triton cannot run its kernels, so AFI takes longer on this GPU; it needs gcc and "
            f"Python's headers ({error})",
            stacklevel=2,
        )
        return None
    return cuda
