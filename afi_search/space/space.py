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
from afi_search.space.schema import ALL, SpaceFile

LISTED = "architecture"
"""The one question of a plain list."""


class Suggests(Protocol):
    def suggest_categorical(self, name: str, choices: list[str]) -> str: ...


class Space:
    """All architectures of a space file, each once.

    A space is either the product of what may be chosen in each stage, or a plain list.

    >>> space = Space.load("resnet")
    >>> space
    <Space of resnet32: 465,831 architectures>
    >>> print(space[1])
    resnet32(off, off, base-r2)
    >>> "resnet32(B-r16)" in space, "resnet20(off)" in space
    (True, False)
    >>> sum(1 for _ in space.neighbours(space[0])), next(space.architectures()) == space[0]
    (230, True)

    In a study of Optuna's:

    >>> import optuna
    >>> trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(0)).ask()
    >>> space.sample(trial) in space
    True
    """

    def __init__(self, file: SpaceFile) -> None:
        self.file = file

    @classmethod
    def load(cls, path: str | Path, preset: str | None = None) -> Space:
        """Read a space file, by path or by the name of one that comes with the package.

        Raises:
            SpaceFileError: the file has mistakes; the message tells all of them.
        """
        return cls(SpaceDocument.read(path).resolve(preset))

    @cached_property
    def questions(self) -> dict[str, list[str]]:
        """What `sample` may ask a trial, and the options; an axis with one is not asked for."""
        options: dict[str, dict[str, None]] = {}
        for answers, _ in chain.from_iterable(self._spellings):
            for name, answer in answers.items():
                options.setdefault(name, {})[answer] = None
        return {name: list(of) for name, of in options.items() if len(of) > 1 or name == LISTED}

    @property
    def stage_choices(self) -> tuple[tuple[StageChoice | None, ...], ...]:
        """The distinct choices of each stage, in the file's order; empty for a plain list."""
        return () if self.file.architectures else self._parts

    @property
    def groups(self) -> list[list[dict[str, str]]]:
        """What can be chosen independently, a stage or one of the list, as answers."""
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
        return prod(map(len, self._parts))

    def __repr__(self) -> str:
        what = self.file.backbone or "a list"
        return f"<Space of {what}: {self.size:,} architectures>"

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Architecture:
        """Return the architecture at a position of the enumeration."""
        if not 0 <= index < self.size:
            raise IndexError(f"the space has {self.size} architectures; there is none at {index}")
        picked: list[Any] = []
        for options in reversed(self._parts):
            index, position = divmod(index, len(options))
            picked.append(options[position])
        return self._architecture(tuple(reversed(picked)))

    def architectures(self) -> Iterator[Architecture]:
        """Return every architecture once, in a fixed order."""
        return map(self._architecture, product(*self._parts))

    def neighbours(self, architecture: Architecture | str) -> Iterator[Architecture]:
        """Yield the architectures that differ from one in one stage; of a plain list, none."""
        stages = Architecture.of(architecture).stages
        for stage, choices in enumerate(self.stage_choices):
            for choice in choices:
                if choice != stages[stage]:
                    yield self._architecture((*stages[:stage], choice, *stages[stage + 1 :]))

    def __contains__(self, architecture: Architecture | str) -> bool:
        architecture = Architecture.of(architecture)
        if self.file.architectures:
            return architecture in self._answers[0]
        return architecture.backbone == self.file.backbone and all(
            choice in choices
            for choice, choices in zip(architecture.stages, self._answers, strict=True)
        )

    def sample(self, trial: Suggests) -> Architecture:
        """Ask an Optuna trial for every choice and return the architecture."""
        answers: dict[str, str] = {}
        for name, options in self.questions.items():
            if answers.get(f"{name.partition('.')[0]}.width") != OFF:
                answers[name] = trial.suggest_categorical(name, options)
        return self.answered(answers)

    def answered(self, answers: Mapping[str, str]) -> Architecture:
        """Return the architecture that answers to `questions` give, or raise KeyError."""
        return self._architecture(
            tuple(found[tuple(map(answers.get, names))] for names, found in self._by_answers)
        )

    def answers(self, architecture: Architecture | str) -> dict[str, tuple[str, list[str]]]:
        """Return what `sample` would ask for to get that architecture: name -> (answer, options).

        Empty where the architecture is not in the space.
        """
        architecture = Architecture.of(architecture)
        if architecture not in self:
            return {}
        parts = (architecture,) if self.file.architectures else architecture.stages
        return {
            name: (answer, self.questions[name])
            for part, choices in zip(parts, self._answers, strict=True)
            for name, answer in choices[part].items()
        }

    def _architecture(self, parts: tuple[Any, ...]) -> Architecture:
        return parts[0] if self.file.architectures else Architecture(str(self.file.backbone), parts)

    @cached_property
    def _spellings(self) -> list[list[tuple[dict[str, str], Any]]]:
        """For each part, a stage or one of the list: all answers, and what they stand for."""
        if self.file.architectures:
            return [[({LISTED: str(listed)}, listed) for listed in self.file.architectures]]
        stages = self.file.stages
        shapes = get_backbone(str(self.file.backbone)).stages
        return [
            [
                (
                    {f"stage{number}.{axis}": value for axis, value in values.items()},
                    canonical_choice(choice, shape),
                )
                for choice, values in (stages.get(number) or stages[ALL]).spellings()
            ]
            for number, shape in enumerate(shapes, start=1)
        ]

    @cached_property
    def _answers(self) -> list[dict[Any, dict[str, str]]]:
        """For each part, what it can be, and the answers that give the first spelling of that."""
        parts: list[dict[Any, dict[str, str]]] = []
        for spellings in self._spellings:
            parts.append({})
            for answers, option in spellings:
                asked = {name: each for name, each in answers.items() if name in self.questions}
                parts[-1].setdefault(option, asked)
        return parts

    @cached_property
    def _parts(self) -> tuple[tuple[Any, ...], ...]:
        return tuple(map(tuple, self._answers))

    @cached_property
    def _by_answers(self) -> list[tuple[list[str], dict[tuple[str | None, ...], Any]]]:
        """For each part, its questions, and what it is by the answers to them."""
        tables = []
        for spellings in self._spellings:
            asked = set().union(*(answers for answers, _ in spellings))
            names = [name for name in self.questions if name in asked]
            tables.append((names, {tuple(map(a.get, names)): option for a, option in spellings}))
        return tables
