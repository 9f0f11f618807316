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
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from afi_search.nn import Stage, build
from afi_search.space import Architecture, StageChoice, get_backbone
from afi_search.space.architecture import canonical_choice

PAPER_BATCH = 32
ANY_RATIO = 16


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


def measure(architecture: Architecture, *, num_classes: int, image_size: int) -> Cost:
    """Return what an architecture costs; nothing is allocated and no data is run.

    Raises:
        UnsupportedImageSize, AttentionTooNarrow: as `afi_search.nn.build` does.
    """
    return _count(architecture, num_classes, image_size).whole.cost


def stage_costs(
    backbone: str,
    choices: Sequence[Collection[StageChoice | None]],
    *,
    num_classes: int,
    image_size: int,
) -> StageCosts:
    """Measure what each choice adds in each stage, with few networks.

    A choice is measured in all stages at once, and an add-on attention, which costs the same
    whatever scores the sources, once a width.

    Args:
        backbone: the backbone's name.
        choices: the choices of each stage; off (None) is always among them.
        num_classes: classes of the classifier.
        image_size: height and width of an image.

    Raises:
        UnknownBackbone, UnsupportedImageSize, AttentionTooNarrow: as building does.
    """
    shapes = get_backbone(backbone).stages
    offered = [
        {choice for offer in of_stage if (choice := canonical_choice(offer, shape)) is not None}
        for of_stage, shape in zip(choices, shapes, strict=True)
    ]
    plain = _count(Architecture.plain(backbone), num_classes, image_size)

    def added(choice: StageChoice, stages: Collection[int]) -> list[Count]:
        placed = tuple(choice if index in stages else None for index in range(len(shapes)))
        counted = _count(Architecture(backbone, placed), num_classes, image_size)
        return [
            part - of_plain for part, of_plain in zip(counted.stages, plain.stages, strict=True)
        ]

    def attention_added(width: str, attention: str | None, index: int) -> Count:
        if attention is None:
            return Count()
        alike = [
            stage
            for stage, of_stage in enumerate(offered)
            if any((choice.width, choice.attention) == (width, attention) for choice in of_stage)
        ]
        bare = StageChoice(width, ANY_RATIO)
        attended = added(replace(bare, attention=attention), alike)
        return attended[index] - added(bare, range(len(shapes)))[index]

    deltas: list[dict[StageChoice | None, Count]] = [{None: Count()} for _ in shapes]
    for index, of_stage in enumerate(offered):
        for choice in of_stage:
            bare = added(replace(choice, attention=None), range(len(shapes)))[index]
            deltas[index][choice] = bare + attention_added(choice.width, choice.attention, index)
    return StageCosts(plain.whole, tuple(deltas))


class _Counts(NamedTuple):
    whole: Count
    stages: tuple[Count, ...]


@lru_cache(maxsize=4096)
def _count(architecture: Architecture, num_classes: int, image_size: int) -> _Counts:
    """Run the network on the meta device, where tensors have shapes and no data, and count."""
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

    def count(part: nn.Module, name: str, counted_as: str) -> Count:
        return Count(
            macs=flops[counted_as] // 2,
            params=sum(parameter.numel() for parameter in part.parameters()),
            norm_elements=sum(
                elements for norm, elements in norm_elements.items() if norm.startswith(name)
            ),
        )

    root = type(model).__name__
    return _Counts(
        count(model, "", "Global"),
        tuple(
            count(module, f"{name}.", f"{root}.{name}")
            for name, module in model.named_modules()
            if isinstance(module, Stage)
        ),
    )


def _note_elements(into: dict[str, int], name: str) -> Callable[[nn.Module, object, Tensor], None]:
    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        into[name] = into.get(name, 0) + output.numel()

    return hook
