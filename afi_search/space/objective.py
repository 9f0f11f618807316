"""What a search can optimise and limit: the accuracy, costs that are counted, and a user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from afi_search.errors import UserError
from afi_search.formatting import megabytes
from afi_search.registry import Registry
from afi_search.space.architecture import Architecture
from afi_search.space.fields import check_name

ACCURACY = "accuracy"


@dataclass(frozen=True)
class Objective:
    """Something that is known of an architecture, to be optimised or limited.

    Attributes:
        name: in space files, and as a column of tables.
        measure: `measure(architecture, cost=..., num_classes=..., image_size=...)` returns the
            number, before any training; `cost` is an `afi_search.cost.Cost`. It is asked in the
            driver's process, for every architecture that is looked at. None for what the package
            counts.
        direction: `down` where less is better, `up` where more is.
        title: what tables and pictures show instead of the name.
        unit: of the number, for readers.

    Raises:
        ValueError: `afi_search.space.fields.check_name` refuses the name.

    >>> def depth(architecture, **known):
    ...     return int(architecture.backbone.removeprefix("resnet"))
    >>> Objective("depth", depth, title="Depth", unit="layers").measure(
    ...     Architecture.plain("resnet32"), cost=None, num_classes=10, image_size=32
    ... )
    32
    """

    name: str
    measure: Callable[..., float] | None = None
    direction: Literal["down", "up"] = "down"
    title: str = ""
    unit: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)


OBJECTIVES = Registry[Objective]("objective")


def register_objective(objective: Objective) -> Objective:
    """Make an objective known by its name, which can be a limit as well; return it.

    A whole module is docs/examples/joules.py, beside a space file that has `imports: [joules]`,
    `constraints: {joules: 0.5}` and `objectives: [accuracy, joules]`:

    ```python
    def joules(architecture, *, cost, **sizes):
        return 3e-12 * cost.macs + 2e-9 * cost.params

    afi_search.register_objective(afi_search.Objective("joules", joules, unit="J"))
    ```

    What has to look at the network builds it: `afi_search.build(architecture, **sizes)`.

    Raises:
        ValueError: another objective has that name.

    >>> register_objective(Objective("doubled", lambda architecture, cost, **_: 2 * cost.macs)).name
    'doubled'
    """
    return OBJECTIVES.register(objective.name, objective)


def goes_up(name: str) -> bool:
    """Whether more of an objective is better; of what is not registered, less is.

    >>> goes_up("accuracy"), goes_up("macs")
    (True, False)
    """
    return name in OBJECTIVES and OBJECTIVES.get(name).direction == "up"


def losses(values: Mapping[Any, Any], names: Iterable[str]) -> list[Any]:
    """Return values, or columns of a table, of what goes up the negative: less is better.

    >>> losses({"accuracy": 0.7, "macs": 9}, ["accuracy", "macs"])
    [-0.7, 9.0]
    """
    return [-1.0 * values[name] if goes_up(name) else 1.0 * values[name] for name in names]


def keeps(name: str, value: float, limit: float) -> bool:
    """Whether a value keeps the limit of an objective: at most that much, or at least.

    >>> keeps("macs", 79e6, 80e6), keeps("accuracy", 0.6, 0.7)
    (True, False)
    """
    return value >= limit if goes_up(name) else value <= limit


def own_measures(names: Iterable[str] | None = None) -> list[str]:
    """Return those of the objectives, or of all, that a user's function measures."""
    among = OBJECTIVES.names if names is None else names
    return [name for name in among if OBJECTIVES.get(name).measure is not None]


@lru_cache(maxsize=100_000)
def measure_own(
    name: str, architecture: Architecture, cost: Any, num_classes: int, image_size: int
) -> float:
    """Return what a user's function says of an architecture; a UserError if that is no number."""
    measure = OBJECTIVES.get(name).measure
    assert measure is not None
    value = measure(architecture, cost=cost, num_classes=num_classes, image_size=image_size)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(
            f"the objective {name!r} gives {value!r} for {architecture}; it must give a number"
        )
    return number


def write_objective(name: str, value: float) -> str:
    """Write a value with its unit, exact enough to compare it with a limit.

    >>> write_objective("memory", 1_234_567_890)
    '1,234.6 MB'
    """
    if own_measures([name]):
        return f"{value:,.6g} {OBJECTIVES.get(name).unit}".strip()
    match name:
        case "latency":
            return f"{value:,.3f} ms"
        case "memory":
            return f"{megabytes(value)} MB"
        case _:
            return f"{value:,.0f}"


register_objective(Objective(ACCURACY, direction="up"))
for _name in ("macs", "params", "memory", "latency"):
    register_objective(Objective(_name))
