"""The axis of cost: which cost a front is drawn over, and how its figures are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pandas import DataFrame

from afi_search.formatting import mega, megabytes, milliseconds
from afi_search.space.objective import OBJECTIVES
from afi_search.study.pareto import costs_of


@dataclass(frozen=True)
class CostAxis:
    """A cost as it is drawn.

    Attributes:
        column: of the records, and of `afi_search.cost.Cost`.
        unit: what a value is divided by.
        title: of the axis.
        explanation: what is counted.
        heading: of a column of a table.
        noun: what follows a figure in a sentence.
        write: writes a value in that unit.
    """

    column: str
    unit: float
    title: str
    explanation: str
    heading: str
    noun: str
    write: Callable[[float], str]

    def say(self, value: float) -> str:
        """Write a value as in a sentence."""
        return f"{self.write(value)} {self.noun}"


AXES = {
    axis.column: axis
    for axis in (
        CostAxis(
            "macs",
            1e6,
            "MACs per image, in millions:",
            "multiply-accumulates of conv and linear layers and AFI scoring",
            "MACs, M",
            "M MACs per image",
            mega,
        ),
        CostAxis(
            "params", 1e6, "parameters, in millions", "", "parameters, M", "M parameters", mega
        ),
        CostAxis(
            "memory",
            1e6,
            "memory in MB:",
            "a training step's peak, float32, the recipe's batch",
            "memory, MB",
            "MB of memory in training",
            megabytes,
        ),
        CostAxis(
            "latency",
            1.0,
            "latency in ms:",
            "a forward pass on the target, float32",
            "latency, ms",
            "ms of latency",
            milliseconds,
        ),
    )
}


def axis_named(cost: str) -> CostAxis:
    """Return the axis of a cost; of a user's objective, in the words it is registered with."""
    if cost in AXES:
        return AXES[cost]
    objective = OBJECTIVES.get(cost)
    title = objective.title or cost
    heading = f"{title}, {objective.unit}" if objective.unit else title
    better = "more is better" if objective.direction == "up" else "less is better"
    noun = f"{objective.unit} {title}".strip()
    return CostAxis(cost, 1.0, f"{heading}:", better, heading, noun, lambda value: f"{value:,.4g}")


def axis_of(records: DataFrame) -> CostAxis:
    """Return the axis that a table's front is drawn over: its first cost."""
    return axis_named(costs_of(records)[0])
