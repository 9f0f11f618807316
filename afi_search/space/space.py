"""Space: the set of architectures that a space file describes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Protocol

from afi_search.space.architecture import (
    OFF,
    Architecture,
    StageChoice,
    canonical_choice,
    choice_text,
)
from afi_search.space.backbone import get_backbone
from afi_search.space.loading import SpaceDocument
from afi_search.space.schema import NONE, SpaceFile, StageAxes


class Suggests(Protocol):
    """The one method of an Optuna trial that sampling needs."""

    def suggest_categorical(self, name: str, choices: list[str]) -> str: ...


class Space:
    """All architectures of a space file, each once.

    A space is either the product of what may be chosen in each stage, or a plain list.
    """

    def __init__(self, file: SpaceFile) -> None:
        self.file = file

    @classmethod
    def load(cls, path: str | Path, preset: str | None = None) -> Space:
        """Read a space file, by path or by the name of one that comes with the package.

        >>> Space.load("resnet")
        <Space of resnet32: 465,831 architectures>

        Raises:
            SpaceFileError: every mistake of the file.
        """
        return cls(SpaceDocument.read(path).resolve(preset))

    @cached_property
    def stage_choices(self) -> tuple[tuple[StageChoice | None, ...], ...]:
        """The distinct choices of each stage; empty for a plain list."""
        if self.file.backbone is None:
            return ()
        shapes = get_backbone(self.file.backbone).stages
        return tuple(
            axes.choices(shape) for axes, shape in zip(self.file.axes(), shapes, strict=True)
        )

    @cached_property
    def first_to_try(self) -> tuple[Architecture, ...]:
        """What is tried before a sampler is asked, each once: baselines, then the file's own."""
        search = self.file.search
        baselines: tuple[Architecture, ...] = ()
        if search.baselines and self.file.backbone is not None:
            baselines = Architecture.baselines(self.file.backbone)
        return tuple(dict.fromkeys((*baselines, *search.first)))

    @property
    def size(self) -> int:
        """The number of architectures, by formula."""
        return len(self.file.architectures) or prod(map(len, self.stage_choices))

    def __repr__(self) -> str:
        what = self.file.backbone or "a list"
        return f"<Space of {what}: {self.size:,} architectures>"

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Architecture:
        """Return the architecture at a position of the enumeration.

        Raises:
            IndexError: there is no such position.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"the space has {self.size} architectures; there is none at {index}")
        if self.file.architectures:
            return self.file.architectures[index]
        picked: list[StageChoice | None] = []
        for choices in reversed(self.stage_choices):
            index, position = divmod(index, len(choices))
            picked.append(choices[position])
        return self._architecture(tuple(reversed(picked)))

    def architectures(self) -> Iterator[Architecture]:
        """Yield every architecture once, in a fixed order."""
        if self.file.architectures:
            yield from self.file.architectures
        else:
            yield from map(self._architecture, product(*self.stage_choices))

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield the architectures that differ from one in one stage; of a plain list, none."""
        for stage, choices in enumerate(self.stage_choices):
            for choice in choices:
                if choice != architecture.stages[stage]:
                    before, after = architecture.stages[:stage], architecture.stages[stage + 1 :]
                    yield self._architecture((*before, choice, *after))

    def __contains__(self, architecture: Architecture) -> bool:
        if self.file.architectures:
            return architecture in self.file.architectures
        return architecture.backbone == self.file.backbone and all(
            choice in choices
            for choice, choices in zip(architecture.stages, self.stage_choices, strict=True)
        )

    def sample(self, trial: Suggests) -> Architecture:
        """Ask a trial for every choice and return the architecture.

        A stage that is off is asked nothing more. An axis with one value is not asked for.
        """
        if self.file.architectures:
            by_text = {str(a): a for a in self.file.architectures}
            return by_text[trial.suggest_categorical("architecture", list(by_text))]
        stages = (
            _sample_stage(trial, f"stage{number}", axes)
            for number, axes in enumerate(self.file.axes(), start=1)
        )
        return self._architecture(tuple(stages))

    def answers(self, architecture: Architecture) -> dict[str, tuple[str, list[str]]]:
        """Return what `sample` would ask for to get that architecture: name -> (answer, options).

        Empty where the architecture is not in the space.
        """
        if architecture not in self:
            return {}
        if self.file.architectures:
            return {"architecture": (str(architecture), list(map(str, self.file.architectures)))}
        assert self.file.backbone is not None
        shapes = get_backbone(self.file.backbone).stages
        result: dict[str, tuple[str, list[str]]] = {}
        stages = zip(self.file.axes(), shapes, architecture.stages, strict=True)
        for number, (axes, shape, choice) in enumerate(stages, start=1):
            spelled = next(s for s in axes.spellings() if canonical_choice(s, shape) == choice)
            answers = {"choice": choice_text(spelled)} if axes.choice else _answers(spelled)
            for axis, answer in answers.items():
                options = _options(axes, axis)
                if len(options) > 1:
                    result[f"stage{number}.{axis}"] = (answer, options)
        return result

    def _architecture(self, stages: tuple[StageChoice | None, ...]) -> Architecture:
        assert self.file.backbone is not None
        return Architecture(self.file.backbone, stages)


def _sample_stage(trial: Suggests, stage: str, axes: StageAxes) -> StageChoice | None:
    def ask(axis: str) -> str:
        options = _options(axes, axis)
        if len(options) == 1:
            return options[0]
        return trial.suggest_categorical(f"{stage}.{axis}", options)

    if axes.choice:
        return StageChoice.parse(ask("choice"))
    width = ask("width")
    if width == OFF:
        return None
    ratio, attention, scorer = int(ask("ratio")), ask("attention"), ask("scorer")
    return StageChoice(width, ratio, None if attention == NONE else attention, scorer)


def _options(axes: StageAxes, axis: str) -> list[str]:
    return [str(option) for option in getattr(axes, axis)]


def _answers(choice: StageChoice | None) -> dict[str, str]:
    if choice is None:
        return {"width": OFF}
    return {
        "width": choice.width,
        "ratio": str(choice.ratio),
        "attention": choice.attention or NONE,
        "scorer": choice.scorer,
    }
