"""The cost of every architecture that a set of choices per stage spans, from a few networks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from afi_search.cost.cost import Cost, Count, Parts
from afi_search.space import Architecture, StageChoice, get_backbone
from afi_search.space.architecture import canonical_choice

_ANY_RATIO = 16

CountParts = Callable[[Architecture], Parts]


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


def stage_costs(
    backbone: str,
    choices: Sequence[Collection[StageChoice | None]],
    count: CountParts,
) -> StageCosts:
    """Measure what each choice adds in each stage, with few networks.

    A choice is measured in all stages at once, and an add-on attention, which costs the same
    whatever the ratio, once a width and scorer.

    Args:
        backbone: the backbone's name.
        choices: the choices of each stage; off (None) is always among them.
        count: returns what a network and its stages cost.

    Raises:
        UnknownBackbone, UnsupportedImageSize, AttentionTooNarrow: as building does.
    """
    shapes = get_backbone(backbone).stages
    offered = [
        {choice for offer in of_stage if (choice := canonical_choice(offer, shape)) is not None}
        for of_stage, shape in zip(choices, shapes, strict=True)
    ]
    plain = count(Architecture.plain(backbone))

    def added(choice: StageChoice, stages: Collection[int]) -> list[Count]:
        placed = tuple(choice if index in stages else None for index in range(len(shapes)))
        counted = count(Architecture(backbone, placed))
        return [
            part - of_plain for part, of_plain in zip(counted.stages, plain.stages, strict=True)
        ]

    def attention_added(choice: StageChoice, index: int) -> Count:
        if choice.attention is None:
            return Count()
        alike = [
            stage
            for stage, of_stage in enumerate(offered)
            if any(_but_ratio(other) == _but_ratio(choice) for other in of_stage)
        ]
        attended = added(replace(choice, ratio=_ANY_RATIO), alike)
        bare = replace(choice, ratio=_ANY_RATIO, attention=None)
        return attended[index] - added(bare, range(len(shapes)))[index]

    deltas: list[dict[StageChoice | None, Count]] = [{None: Count()} for _ in shapes]
    for index, of_stage in enumerate(offered):
        for choice in of_stage:
            bare = added(replace(choice, attention=None), range(len(shapes)))[index]
            deltas[index][choice] = bare + attention_added(choice, index)
    return StageCosts(plain.whole, tuple(deltas))


def _but_ratio(choice: StageChoice) -> tuple[str, str | None, str]:
    return choice.width, choice.attention, choice.scorer
