"""What the picture of a front shows, prepared once for every renderer.

The picture has up to three panels over one axis of cost, the study's first. The main one holds the
trials of full fidelity and their front. The paper's points are another measure; where they lie far
from the trials they get a panel of their own above, so that neither squeezes the other. Pruned
trials have no accuracy that could be compared, so the panel below shows their cost against the
epoch after which they were stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pandas import DataFrame

from afi_search.cost import Cost
from afi_search.formatting import against, count, mega, percent
from afi_search.report.axis import AXES, CostAxis, axis_of
from afi_search.report.interval import wilson
from afi_search.study.info import StudyInfo
from afi_search.study.paper import PaperResult
from afi_search.study.pareto import comparable, front
from afi_search.study.reference import Landmarks

LABEL_GAP = (0.05, 0.055)
NAME_GAP = 0.16
FAR = 2.5
SMALLEST_SPAN = 4.0


@dataclass(frozen=True)
class Point:
    """A marker.

    Attributes:
        cost: its place on the axis of cost.
        y: accuracy in per cent, or the epoch after which a pruned trial was stopped.
        label: a short name, like `#12`.
        architecture: the canonical text.
        lines: what to say of it, a line each.
        low: lower end of the 95 % interval in per cent; y where it is not known.
        high: upper end, likewise.
        labelled: whether there is room to write the label beside it.
    """

    cost: float
    y: float
    label: str
    architecture: str
    lines: tuple[str, ...]
    low: float
    high: float
    labelled: bool = False


@dataclass(frozen=True)
class PlainLine:
    """Where a backbone without AFI stands on the axis of cost.

    Attributes:
        cost: its place.
        label: what to write at its top; empty where there is no room.
    """

    cost: float
    label: str


@dataclass(frozen=True)
class FrontView:
    """Everything a renderer draws, in data coordinates.

    Attributes:
        title: the study in a line.
        facts: what was run, in short parts.
        note: what the numbers are good for; may be empty.
        message: what to write into an empty main panel; empty where there is a front.
        axis: the cost that everything is drawn over.
        plain: the plain backbones, each with its cost and whether there is room for its name.
        front: non-dominated trials, cheapest first.
        plain_trials: trials of full fidelity of a plain backbone, on the front or not.
        others: all further trials of full fidelity.
        pruned: trials that were stopped early, over the epoch.
        paper: the paper's points.
        paper_name: what kind of measure these are.
        paper_apart: whether these have a panel of their own.
        intervals: whether the points carry a sampling error.
        cost_range: of the common axis.
        accuracy_range: of the main panel, in per cent.
        paper_range: of the paper's panel, in per cent.
        epochs: full fidelity.
    """

    title: str
    facts: tuple[str, ...]
    note: str
    message: str
    axis: CostAxis
    plain: tuple[PlainLine, ...]
    front: tuple[Point, ...]
    plain_trials: tuple[Point, ...]
    others: tuple[Point, ...]
    pruned: tuple[Point, ...]
    paper: tuple[Point, ...]
    paper_name: str
    paper_apart: bool
    intervals: bool
    cost_range: tuple[float, float]
    accuracy_range: tuple[float, float]
    paper_range: tuple[float, float]
    epochs: int

    def y_range(self, panel: str) -> tuple[float, float]:
        """The vertical range of a panel: `main`, `paper` or `pruned`."""
        if panel == "main":
            return self.accuracy_range
        if panel == "paper":
            return self.paper_range
        return 0.0, 1.4 * max(_y(self.pruned), default=1.0)

    @property
    def pruned_ticks(self) -> list[float]:
        """The epochs to write beside the panel of pruned trials, five at the most."""
        epochs = sorted(set(_y(self.pruned)))
        step = -(-len(epochs) // 5) or 1
        return epochs[::-1][::step][::-1]

    @property
    def stairs(self) -> tuple[tuple[float, float], ...]:
        """The corners of the best accuracy that can be had for at most so much."""
        corners: list[tuple[float, float]] = []
        for point in self.front:
            if corners:
                corners.append((point.cost, corners[-1][1]))
            corners.append((point.cost, max([point.y, *(y for _, y in corners[-1:])])))
        if corners:
            corners.append((self.cost_range[1], corners[-1][1]))
        return tuple(corners)


def front_view(records: DataFrame, info: StudyInfo, marks: Landmarks) -> FrontView:
    """Prepare the picture of a study's front.

    Args:
        records: the ledger's trials.
        info: the study's facts.
        marks: the plain backbone and the paper's points.

    Raises:
        ValueError: a column of `records` is missing.
    """
    axis = axis_of(records)
    best = front(records)
    full = comparable(records)
    pruned = records[(records["state"] == "pruned") & (records["epochs"] > 0)]

    def points(rows: DataFrame) -> tuple[Point, ...]:
        return tuple(_trial_point(row, info, marks, axis) for row in rows.to_dict("records"))

    front_points = points(best)
    dominated = points(full.drop(best.index))
    stopped = tuple(_pruned_point(row, info, marks, axis) for row in pruned.to_dict("records"))
    paper = tuple(
        _paper_point(result, cost, marks, axis)
        for result, cost in marks.paper
        if getattr(cost, axis.column) is not None
    )
    trials = (*front_points, *dominated)
    apart = _far_apart(_y(paper), _y(trials))
    main = trials if apart else (*trials, *paper)
    plain = _plain_costs(marks, axis)
    costs = [*plain.values(), *(point.cost for point in (*trials, *stopped, *paper))]
    cost_range = _padded(costs, share=0.07, least=0.03 * max(costs, default=axis.unit))
    accuracy_range = _accuracy_range(main, front_points)
    return FrontView(
        title=_title(info),
        facts=_facts(records, info),
        note=info.note,
        message="" if trials else _nothing_yet(records, info),
        axis=axis,
        plain=_plain_lines(plain, cost_range),
        front=_with_labels(front_points, cost_range, accuracy_range),
        plain_trials=tuple(point for point in trials if point.architecture in marks.plain),
        others=tuple(point for point in dominated if point.architecture not in marks.plain),
        pruned=stopped,
        paper=paper,
        paper_name=_paper_name(marks),
        paper_apart=apart,
        intervals=bool(info.validation_images),
        cost_range=cost_range,
        accuracy_range=accuracy_range,
        paper_range=_padded(_y(paper), 0.35, SMALLEST_SPAN / 2),
        epochs=info.epochs,
    )


def describe(row: Mapping[Any, Any], info: StudyInfo, marks: Landmarks) -> tuple[str, ...]:
    """Say what is known of a trial, in short lines; the architecture comes first."""
    plain = marks.plain[row["backbone"]]
    accuracy = f"{percent(row['accuracy'])} % validation accuracy"
    if row["full"] and info.validation_images:
        low, high = wilson(row["accuracy"], info.validation_images)
        accuracy += f" (95 %: {percent(low)} to {percent(high)})"
    elif not row["full"]:
        accuracy += f" after {row['epochs']} of {info.epochs} epochs"
    return (
        row["architecture"],
        accuracy,
        f"{mega(row['macs'])} M MACs per image ({against(row['macs'], plain.macs)} vs plain)",
        *(f"{AXES[name].write(row[name])} {AXES[name].noun}" for name in measured(row)),
        f"{count(row['params'])} parameters ({against(row['params'], plain.params)} vs plain)",
        f"{row['paper_gflops']:.2f} G FLOPs as the paper counts (batch 32)",
        f"trial #{row['number']}, {_plural(row['epochs'], 'epoch')}, seed {row['seed']}",
    )


def measured(row: Mapping[Any, Any]) -> list[str]:
    """Return which of the costs that only some studies ask for a trial has."""
    return [name for name in ("memory", "latency") if math.isfinite(row.get(name, math.nan))]


def _trial_point(
    row: Mapping[Any, Any], info: StudyInfo, marks: Landmarks, axis: CostAxis
) -> Point:
    accuracy = row["accuracy"]
    images = info.validation_images
    low, high = wilson(accuracy, images) if images else (accuracy, accuracy)
    return Point(
        cost=float(row[axis.column]),
        y=100 * accuracy,
        label=f"#{row['number']}",
        architecture=row["architecture"],
        lines=describe(row, info, marks),
        low=100 * low,
        high=100 * high,
    )


def _pruned_point(
    row: Mapping[Any, Any], info: StudyInfo, marks: Landmarks, axis: CostAxis
) -> Point:
    epochs = float(row["epochs"])
    return Point(
        cost=float(row[axis.column]),
        y=epochs,
        label=f"#{row['number']}",
        architecture=row["architecture"],
        lines=describe(row, info, marks),
        low=epochs,
        high=epochs,
    )


def _paper_point(result: PaperResult, cost: Cost, marks: Landmarks, axis: CostAxis) -> Point:
    plain = marks.plain[result.backbone]
    lines = (
        f"{result.model}, the paper's own result",
        result.architecture,
        f"{result.top1:.2f} % test accuracy after {result.dataset.epochs} epochs",
        f"{mega(cost.macs)} M MACs per image ({against(cost.macs, plain.macs)} vs plain)",
        f"{count(cost.params)} parameters ({against(cost.params, plain.params)} vs plain)",
        f"{cost.paper_gflops:.2f} G FLOPs as the paper counts (batch 32)",
    )
    return Point(
        cost=float(getattr(cost, axis.column)),
        y=result.top1,
        label=result.model,
        architecture=result.architecture,
        lines=lines,
        low=result.top1,
        high=result.top1,
    )


def _title(info: StudyInfo) -> str:
    many = len(info.backbones) > 1
    what = f"{len(info.backbones)} backbones" if many else info.backbones[0]
    return f"{info.name}: accuracy against cost of {what} with AFI on {info.dataset}"


def _plain_costs(marks: Landmarks, axis: CostAxis) -> dict[str, float]:
    """Return where the plain backbones stand on an axis, as far as that is known."""
    costs = {name: getattr(cost, axis.column) for name, cost in marks.plain.items()}
    return {name: float(cost) for name, cost in costs.items() if cost is not None}


def _plain_lines(
    costs: Mapping[str, float], cost_range: tuple[float, float]
) -> tuple[PlainLine, ...]:
    """Place the lines of the plain backbones; a name goes where the one before it leaves room."""
    lines: list[PlainLine] = []
    room_from = cost_range[0]
    for name, cost in sorted(costs.items(), key=lambda item: item[1]):
        fits = cost >= room_from
        lines.append(PlainLine(cost, f"plain {name}" if fits else ""))
        if fits:
            room_from = cost + NAME_GAP * (cost_range[1] - cost_range[0])
    return tuple(lines)


def _paper_name(marks: Landmarks) -> str:
    epochs = sorted({result.dataset.epochs for result, _ in marks.paper})
    return f"paper, test accuracy, {' or '.join(map(str, epochs))} epochs"


def _facts(records: DataFrame, info: StudyInfo) -> tuple[str, ...]:
    states = records["state"].value_counts()
    full = len(comparable(records))
    parts = [f"{full} of full fidelity ({_plural(info.epochs, 'epoch')})"]
    parts += [
        f"{states[name]} {name}"
        for name in ("pruned", "failed", "running", "waiting")
        if name in states
    ]
    images = [
        f"{number:,} {what}"
        for number, what in (
            (info.train_images, "training"),
            (info.validation_images, "validation"),
        )
        if number is not None
    ]
    return (
        f"{_plural(len(records), 'trial')}: {', '.join(parts)}",
        *([f"{' and '.join(images)} images"] if images else []),
        *([f"preset {info.preset}"] if info.preset else []),
        *([info.device] if info.device else []),
        f"seed {info.seed}",
    )


def _nothing_yet(records: DataFrame, info: StudyInfo) -> str:
    if records.empty:
        return "No trial has been started yet."
    return f"No trial has reached full fidelity\n({_plural(info.epochs, 'epoch')}) yet."


def _accuracy_range(main: Sequence[Point], best: Sequence[Point]) -> tuple[float, float]:
    """Span the main panel over its points and the intervals of the front, within 0..100."""
    if not main:
        return 0.0, 100.0
    ends = [end for point in best for end in (point.low, point.high)]
    low, high = _padded([*_y(main), *ends], 0.08, SMALLEST_SPAN / 2)
    return max(low, -1.0), min(high, 101.0)


def _far_apart(paper: Sequence[float], trials: Sequence[float]) -> bool:
    """Tell whether a common axis would show no trial, or all of them in a small part of it."""
    if not paper or not trials:
        return bool(paper)
    together = max(*paper, *trials) - min(*paper, *trials)
    return together > FAR * max(max(trials) - min(trials), max(paper) - min(paper), SMALLEST_SPAN)


def _with_labels(
    points: Iterable[Point], x_range: tuple[float, float], y_range: tuple[float, float]
) -> tuple[Point, ...]:
    """Mark the points whose labels do not run into one another, from the best downwards."""
    placed: list[tuple[float, float]] = []
    chosen: list[Point] = []
    for point in reversed(tuple(points)):
        x = (point.cost - x_range[0]) / (x_range[1] - x_range[0])
        y = (point.y - y_range[0]) / (y_range[1] - y_range[0])
        free = all(
            abs(x - other_x) > LABEL_GAP[0] or abs(y - other_y) > LABEL_GAP[1]
            for other_x, other_y in placed
        )
        if free:
            placed.append((x, y))
        chosen.append(replace(point, labelled=free))
    return tuple(reversed(chosen))


def _padded(values: Sequence[float], share: float, least: float) -> tuple[float, float]:
    """Return the range of the values, wider by a share of it, or by `least` on both sides."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    margin = max(share * (high - low), least)
    return low - margin, high + margin


def _y(points: Iterable[Point]) -> list[float]:
    return [point.y for point in points]


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
