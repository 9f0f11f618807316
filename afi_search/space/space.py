"""Space: the set of architectures that a space file describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain, product
from math import prod
from pathlib import Path
from typing import Any, Protocol

from afi_search.space.architecture import OFF, Architecture, StageChoice, canonical_choice
from afi_search.space.backbone import get_backbone
from afi_search.space.loading import SpaceDocument
from afi_search.space.schema import SpaceFile


class Suggests(Protocol):
    """The one method of an Optuna trial that sampling needs."""

    def suggest_categorical(self, name: str, choices: list[str]) -> str: ...


class Space:
    """All architectures of a space file, each once.

    A space is either the product of what may be chosen in each stage, or a plain list.

    >>> space = Space.load("resnet")
    >>> space
    <Space of resnet32: 465,831 architectures>
    >>> print(space[1])
    resnet32(off, off, base-r2)
    """

    def __init__(self, file: SpaceFile) -> None:
        self.file = file

    @classmethod
    def load(cls, path: str | Path, preset: str | None = None) -> Space:
        """Read a space file, by path or by the name of one that comes with the package.

        Raises:
            SpaceFileError: every mistake of the file.
        """
        return cls(SpaceDocument.read(path).resolve(preset))

    @cached_property
    def questions(self) -> dict[str, list[str]]:
        """What `sample` may ask a trial, and the options; an axis with one is not asked for."""
        if self.file.architectures:
            return {"architecture": list(map(str, self.file.architectures))}
        options: dict[str, dict[str, None]] = {}
        for answers, _ in chain.from_iterable(self._spellings):
            for name, answer in answers.items():
                options.setdefault(name, {})[answer] = None
        return {name: list(answers) for name, answers in options.items() if len(answers) > 1}

    @cached_property
    def stage_choices(self) -> tuple[tuple[StageChoice | None, ...], ...]:
        """The distinct choices of each stage, in the file's order; empty for a plain list."""
        return tuple(map(tuple, self._answers))

    @property
    def groups(self) -> list[list[dict[str, str]]]:
        """What can be chosen independently, a stage or one of the list, as answers."""
        if self.file.architectures:
            return [[{"architecture": text} for text in self._by_text]]
        return [list(choices.values()) for choices in self._answers]

    @cached_property
    def first_to_try(self) -> tuple[Architecture, ...]:
        """What is tried before a sampler is asked, each once: baselines, then the file's own."""
        search, backbone = self.file.search, self.file.backbone
        baselines = Architecture.baselines(backbone) if search.baselines and backbone else ()
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
        stages = architecture.stages
        for stage, choices in enumerate(self.stage_choices):
            for choice in choices:
                if choice != stages[stage]:
                    yield self._architecture((*stages[:stage], choice, *stages[stage + 1 :]))

    def __contains__(self, architecture: Architecture) -> bool:
        if self.file.architectures:
            return architecture in self.file.architectures
        return architecture.backbone == self.file.backbone and all(
            choice in choices
            for choice, choices in zip(architecture.stages, self.stage_choices, strict=True)
        )

    def sample(self, trial: Suggests) -> Architecture:
        """Ask an Optuna trial for every choice and return the architecture.

        A stage that is off is asked nothing more. An axis with one value is not asked for.
        """
        answers: dict[str, str] = {}
        for name, options in self.questions.items():
            if answers.get(f"{name.partition('.')[0]}.width") != OFF:
                answers[name] = trial.suggest_categorical(name, options)
        return self.answered(answers)

    def answered(self, answers: Mapping[str, str]) -> Architecture:
        """Return the architecture that the answers to `questions` give.

        Raises:
            KeyError: they give none.
        """
        if self.file.architectures:
            return self._by_text[answers["architecture"]]
        return self._architecture(
            tuple(found[tuple(map(answers.get, names))] for names, found in self._by_answers)
        )

    def answers(self, architecture: Architecture) -> dict[str, tuple[str, list[str]]]:
        """Return what `sample` would ask for to get that architecture: name -> (answer, options).

        Empty where the architecture is not in the space.
        """
        if architecture not in self:
            return {}
        answers = {"architecture": str(architecture)} if self.file.architectures else {}
        for choice, choices in zip(architecture.stages, self._answers, strict=False):
            answers |= choices[choice]
        return {name: (answer, self.questions[name]) for name, answer in answers.items()}

    def _architecture(self, stages: tuple[StageChoice | None, ...]) -> Architecture:
        assert self.file.backbone is not None
        return Architecture(self.file.backbone, stages)

    @cached_property
    def _spellings(self) -> list[list[tuple[dict[str, str], StageChoice | None]]]:
        """For each stage, all answers that may be given, and the choices they stand for."""
        if self.file.backbone is None:
            return []
        shapes = get_backbone(self.file.backbone).stages
        return [
            [
                (
                    {f"stage{number}.{axis}": value for axis, value in values.items()},
                    canonical_choice(choice, shape),
                )
                for choice, values in axes.spellings()
            ]
            for number, (axes, shape) in enumerate(zip(self.file.axes(), shapes, strict=True), 1)
        ]

    @cached_property
    def _answers(self) -> list[dict[StageChoice | None, dict[str, str]]]:
        """For each stage, its distinct choices, and the answers that give the first spelling."""
        stages: list[dict[StageChoice | None, dict[str, str]]] = []
        for spellings in self._spellings:
            stages.append({})
            for answers, choice in spellings:
                asked = {name: each for name, each in answers.items() if name in self.questions}
                stages[-1].setdefault(choice, asked)
        return stages

    @cached_property
    def _by_answers(self) -> list[tuple[list[str], dict[tuple[str | None, ...], Any]]]:
        """For each stage, its questions, and the choices by the answers to them."""
        tables = []
        for number, spellings in enumerate(self._spellings, start=1):
            names = [name for name in self.questions if name.startswith(f"stage{number}.")]
            tables.append((names, {tuple(map(a.get, names)): choice for a, choice in spellings}))
        return tables

    @cached_property
    def _by_text(self) -> dict[str, Architecture]:
        return {str(architecture): architecture for architecture in self.file.architectures}
