"""What an architecture costs, before any training and without allocating its weights.

The figures:

- `macs`: multiply-accumulates of convolutions and linear layers, AFI's scoring among them, per
  image. One multiply-accumulate is what other tools may count as two FLOPs.
- `params`: all learnable parameters.
- `paper_gflops`: the paper's own count of FLOPs, for a batch of 32:
  32 x (macs + 2 x output elements of every batch norm) / 10^9. It gives the paper's baselines to
  the printed digit; its AFI rows seem to hold a little more (up to 0.4 %), which may be AFI's
  elementwise work.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from afi_search.nn import Stage, build
from afi_search.space import Architecture, StageChoice, get_backbone
from afi_search.space.architecture import canonical_choice

PAPER_BATCH = 32


@dataclass(frozen=True)
class Cost:
    """The cost of an architecture.

    Attributes:
        macs: multiply-accumulates of convolutions, linear layers and AFI's scoring, per image.
        params: learnable parameters.
        paper_gflops: the paper's FLOPs, in 10^9, for a batch of 32.
    """

    macs: int
    params: int
    paper_gflops: float


@dataclass(frozen=True)
class Count:
    """What a network or a part of it adds to its cost; whole numbers, so that sums are exact.

    Attributes:
        macs: as in `Cost`.
        params: as in `Cost`.
        norm_elements: output elements of all batch norms, per image.
    """

    macs: int = 0
    params: int = 0
    norm_elements: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.macs + other.macs,
            self.params + other.params,
            self.norm_elements + other.norm_elements,
        )

    def __sub__(self, other: Count) -> Count:
        return Count(
            self.macs - other.macs,
            self.params - other.params,
            self.norm_elements - other.norm_elements,
        )

    @property
    def cost(self) -> Cost:
        """The same as a cost; of a difference, the differences."""
        paper_flops = PAPER_BATCH * (self.macs + 2 * self.norm_elements)
        return Cost(self.macs, self.params, paper_flops / 1e9)


@dataclass(frozen=True)
class StageCosts:
    """The cost of every architecture that a set of choices per stage spans.

    What a stage puts out has the same shape whatever is chosen in it, so costs add up exactly:
    an architecture's count is `plain` plus one delta a stage.

    Attributes:
        plain: the backbone without AFI.
        deltas: for each stage, its choices (in canonical form, None for off) and what each adds.
    """

    plain: Count
    deltas: tuple[Mapping[StageChoice | None, Count], ...]

    def cost(self, architecture: Architecture) -> Cost:
        """Return an architecture's cost.

        Raises:
            KeyError: one of its choices is not among those that were measured.
        """
        stages = zip(self.deltas, architecture.stages, strict=True)
        return sum((delta[choice] for delta, choice in stages), start=self.plain).cost


@lru_cache(maxsize=4096)
def measure(architecture: Architecture, *, num_classes: int, image_size: int) -> Cost:
    """Return what an architecture costs; nothing is allocated and no data is run.

    Raises:
        UnsupportedImageSize, AttentionTooNarrow: as `afi_search.nn.build` does.
    """
    return _count(architecture, num_classes, image_size)[""].cost


def stage_costs(
    backbone: str,
    choices: Sequence[Collection[StageChoice | None]],
    *,
    num_classes: int,
    image_size: int,
) -> StageCosts:
    """Measure what each choice adds in each stage, with one network per distinct choice.

    Args:
        backbone: the backbone's name.
        choices: the choices of each stage; off (None) is always measured.
        num_classes: classes of the classifier.
        image_size: height and width of an image.

    Raises:
        UnknownBackbone, UnsupportedImageSize, AttentionTooNarrow: as building does.
    """
    shapes = get_backbone(backbone).stages
    canonical = [
        {canonical_choice(choice, shape) for choice in offered}
        for offered, shape in zip(choices, shapes, strict=True)
    ]
    plain = _count(Architecture.plain(backbone), num_classes, image_size)
    names = [name for name in plain if name]
    deltas: list[dict[StageChoice | None, Count]] = [{None: Count()} for _ in shapes]
    for choice in set().union(*canonical) - {None}:
        offering = [choice in offered for offered in canonical]
        stages = tuple(choice if offered else None for offered in offering)
        counts = _count(Architecture(backbone, stages), num_classes, image_size)
        for delta, name, offered in zip(deltas, names, offering, strict=True):
            if offered:
                delta[choice] = counts[name] - plain[name]
    return StageCosts(plain[""], tuple(deltas))


def _count(architecture: Architecture, num_classes: int, image_size: int) -> dict[str, Count]:
    """Return the count of the whole network, under "", and of each stage, under its name."""
    with torch.device("meta"):
        model = build(architecture, num_classes=num_classes, image_size=image_size).eval()
        image = torch.empty(1, 3, image_size, image_size)
    norm_elements: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_hook(_note_elements(norm_elements, name))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    flops = {name: sum(of.values()) for name, of in counter.get_flop_counts().items()}
    parts = {"": model} | {
        name: module for name, module in model.named_modules() if isinstance(module, Stage)
    }
    root = type(model).__name__
    return {
        name: Count(
            macs=flops[f"{root}.{name}" if name else "Global"] // 2,
            params=sum(parameter.numel() for parameter in part.parameters()),
            norm_elements=sum(
                elements for norm, elements in norm_elements.items() if _is_in(norm, name)
            ),
        )
        for name, part in parts.items()
    }


def _note_elements(into: dict[str, int], name: str) -> Callable[[nn.Module, object, Tensor], None]:
    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        into[name] = into.get(name, 0) + output.numel()

    return hook


def _is_in(module: str, part: str) -> bool:
    return not part or module.startswith(f"{part}.")
