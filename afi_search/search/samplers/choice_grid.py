"""The points of a search space of choices, numbered, with their costs and features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

Params = Mapping[str, Any]
CostOf = Callable[[dict[str, Any]], Sequence[float]]
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_Place = tuple[list[int], Sequence[float]]
_ABSENT = object()
_ENUMERABLE = 5_000
"""Points of a space that are drawn from all of it, and draws from a larger one."""
_LEVELS = 32


class ChoiceGrid:
    """All points of a search space; a point is a row with the position of one option a group.

    Args:
        groups: each lists the combinations of parameters of which one is taken.
        scales: of each group whose options are steps of one scale, where they stand on it.
        cost_of: parameters -> known values.
    """

    def __init__(
        self, groups: Sequence[Sequence[Params]], scales: Sequence[Floats | None], cost_of: CostOf
    ) -> None:
        self.groups = groups
        self._cost_of = cost_of
        self._costs: dict[bytes, tuple[float, ...]] = {}
        self._located: dict[int, tuple[FrozenTrial, _Place]] = {}
        self._sizes = np.array([len(group) for group in groups])
        self._names = [
            tuple(dict.fromkeys(name for each in group for name in each)) for group in groups
        ]
        self._positions = [
            {self._answers(number, params): position for position, params in enumerate(group)}
            for number, group in enumerate(groups)
        ]
        tables = [
            _indicators(group, names) if scale is None else _scale(scale)
            for group, names, scale in zip(groups, self._names, scales, strict=True)
        ]
        self._tables = [features for features, _ in tables]
        self._parameters = max(1, sum(count for _, count in tables))

    def params(self, code: Codes) -> dict[str, Any]:
        """Return the parameters of a point."""
        chosen = zip(self.groups, code, strict=True)
        return {name: value for group, at in chosen for name, value in group[int(at)].items()}

    def locate(self, trials: Sequence[FrozenTrial]) -> tuple[Codes, Floats]:
        """Return of n trials of a study their n x groups positions, and n x known values.

        Positions are -1, and values NaN, of trials outside the grid.
        """
        known, count = self._located, len(self._nowhere[1])
        located = [
            seen[1]
            if (seen := known.get(trial.number)) is not None and seen[0] is trial
            else self._locate(trial)
            for trial in trials
        ]
        codes = np.array([code for code, _ in located], dtype=np.int64)
        costs = np.array([cost for _, cost in located], dtype=float)
        return codes.reshape(-1, len(self.groups)), costs.reshape(len(trials), count)

    def features(self, codes: Codes) -> Floats:
        """Return n x features; half the squared distance is the share of unlike parameters."""
        columns = [table[codes[:, number]] for number, table in enumerate(self._tables)]
        return np.concatenate(columns, axis=1) / np.sqrt(self._parameters)

    def cost(self, code: Codes) -> tuple[float, ...]:
        """Return the known values of a point."""
        key = code.tobytes()
        if key not in self._costs:
            self._costs[key] = numbers("cost_of", self._cost_of, self.params(code))
        return self._costs[key]

    def draw(self, random: np.random.Generator) -> Iterator[Codes]:
        """Yield points at random, and every point at least once."""
        size = prod(map(int, self._sizes))
        if size > _ENUMERABLE:
            yield from random.integers(self._sizes, size=(_ENUMERABLE, len(self._sizes)))
            order: Iterable[int] = range(size)
        else:
            order = random.permutation(size)
        for index in order:
            yield np.array(np.unravel_index(index, self._sizes))

    def neighbours(self, codes: Codes, random: np.random.Generator) -> Codes:
        """Return the points that differ from one of these in one group, in random order."""
        rows = [np.empty((0, len(self._sizes)), dtype=np.int64)]
        for group, size in enumerate(self._sizes):
            others = np.repeat(codes, size, axis=0)
            others[:, group] = np.tile(np.arange(size), len(codes))
            rows.append(others[others[:, group] != np.repeat(codes[:, group], size)])
        unique = np.unique(np.concatenate(rows), axis=0)
        return random.permutation(unique)

    @cached_property
    def _nowhere(self) -> _Place:
        known = self.cost(np.zeros(len(self.groups), dtype=np.int64))
        return [-1] * len(self.groups), [np.nan] * len(known)

    def _locate(self, trial: FrozenTrial) -> _Place:
        """Return a trial's position and known values, kept where they change no more."""
        code = [
            positions.get(self._answers(number, trial.params), -1)
            for number, positions in enumerate(self._positions)
        ]
        place = (code, self.cost(np.array(code))) if min(code) >= 0 else self._nowhere
        if trial.number >= 0 and trial.state.is_finished():
            self._located[trial.number] = trial, place
        return place

    def _answers(self, group: int, params: Params) -> tuple[tuple[str, Any], ...]:
        return tuple((name, params[name]) for name in self._names[group] if name in params)


def numbers(name: str, function: CostOf, params: dict[str, Any]) -> tuple[float, ...]:
    """Return the finite numbers that a user's function of that name says, or raise a ValueError."""
    try:
        told = function(params)
    except KeyError as missing:
        if missing.args[0] in params:
            raise
        raise ValueError(
            f"{name} asks for {missing}, and not every trial was asked for it, or for the same "
            f"values of it; parameters that depend on each other are described by groups"
        ) from missing
    try:
        values = tuple(map(float, told))
    except TypeError:
        values = (np.nan,)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} returns {told} for {params}; a list of finite numbers is wanted")
    return values


def _indicators(group: Sequence[Params], names: Sequence[str]) -> tuple[Floats, int]:
    """Return options x features with a one for each parameter's value, and how many vary."""
    columns, varying = [], 0
    for name in names:
        values = [params.get(name, _ABSENT) for params in group]
        distinct = list(dict.fromkeys(values))
        if len(distinct) > 1:
            columns.append(np.eye(len(distinct))[[distinct.index(value) for value in values]])
            varying += 1
    return np.concatenate(columns or [np.zeros((len(group), 0))], axis=1), varying


def _scale(steps: Floats) -> tuple[Floats, int]:
    """Return steps x features whose distances grow along the scale, from 0 to 1."""
    if len(steps) == 1:
        return np.zeros((1, 0)), 0
    levels = min(len(steps) - 1, _LEVELS)
    place = (steps - steps[0]) / (steps[-1] - steps[0]) * levels
    filled = np.clip(place[:, None] - np.arange(levels), 0, 1)
    return filled * np.sqrt(2 / levels), 1
