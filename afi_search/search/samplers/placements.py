"""The known-cost sampler of a space file: what each stage may have, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from afi_search.cost import SpaceCosts
from afi_search.search.samplers.known_cost import KnownCostSampler
from afi_search.space import Architecture, Space, StageChoice
from afi_search.space.objective import losses


class Answers:
    """Answers what a trial would be asked, from parameters that are given."""

    def __init__(self, params: Mapping[str, str]) -> None:
        self._params = params

    def suggest_categorical(self, name: str, choices: list[str]) -> str:
        """Return the parameter."""
        return self._params[name]


def known_cost_sampler(space: Space, costs: SpaceCosts) -> KnownCostSampler:
    """Return the sampler that knows a space's choices, costs and constraints."""
    file = space.file
    limits = file.constraints.limits()
    groups, architecture_of = _combinations(space)

    def cost_of(params: Mapping[str, str]) -> list[float]:
        figures = costs.of(architecture_of(params)).figures()
        return [*(float(figures[name]) for name in file.costs), *losses(figures, limits)]

    return KnownCostSampler(
        cost_of,
        bounds=[*(None for _ in file.costs), *losses(limits, limits)],
        groups=groups,
        learned=file.objectives.index("accuracy"),
        seed=file.search.seed,
    )


def _combinations(
    space: Space,
) -> tuple[list[list[dict[str, str]]], Callable[[Mapping[str, str]], Architecture]]:
    """Return what may be answered for each stage, and the architecture that has the answers.

    A plain list of architectures is answered by one of them.
    """
    if not space.stage_choices:
        by_text = {str(architecture): architecture for architecture in space.architectures()}
        return (
            [[{"architecture": text} for text in by_text]],
            lambda params: by_text[params["architecture"]],
        )
    groups = []
    choices: list[tuple[tuple[str, ...], dict[tuple[str | None, ...], StageChoice | None]]] = []
    first = space[0]
    for stage, options in enumerate(space.stage_choices):
        before, after = first.stages[:stage], first.stages[stage + 1 :]
        answers = {
            choice: _answers(space, Architecture(first.backbone, (*before, choice, *after)), stage)
            for choice in options
        }
        groups.append(list(answers.values()))
        names = tuple(dict.fromkeys(name for each in answers.values() for name in each))
        choices.append((names, {tuple(map(each.get, names)): c for c, each in answers.items()}))

    def architecture_of(params: Mapping[str, str]) -> Architecture:
        return Architecture(
            first.backbone,
            tuple(chosen[tuple(map(params.get, names))] for names, chosen in choices),
        )

    return groups, architecture_of


def _answers(space: Space, architecture: Architecture, stage: int) -> dict[str, str]:
    return {
        name: answer
        for name, (answer, _) in space.answers(architecture).items()
        if name.startswith(f"stage{stage + 1}.")
    }
