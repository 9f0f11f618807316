"""A study as it is shown: what its pictures, tables and pages have in common."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any, Self

import numpy as np
from pandas import DataFrame, Series

from afi_search.cost import Cost
from afi_search.errors import UserError
from afi_search.formatting import against, count, mega, megabytes, percent, plural, signed
from afi_search.space.objective import OBJECTIVES, own_measures
from afi_search.study.info import StudyInfo
from afi_search.study.pareto import comparable, costs_of, front
from afi_search.study.reference import References, measure_references
from afi_search.study.study import Study

FRONT, OTHERS, PRUNED = "front", "other trials of full fidelity", "pruned"
FAILED, UNFINISHED = "failed", "not finished"
KINDS = (FRONT, OTHERS, PRUNED, FAILED, UNFINISHED)
"""What becomes of a trial."""
HOVER_LETTERS = 44
_FOLDED = re.compile(rf"(.{{1,{HOVER_LETTERS}}}|\S+)(?: |$)")
Z_95 = 1.959963984540054
"""So many standard deviations around its mean hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class CostAxis:
    """A cost as it is drawn and written: `write` does so in the unit, `noun` follows in a sentence.

    `column` is that of the records and of `afi_search.cost.Cost`; a value is divided by `unit`.
    """

    column: str
    unit: float
    title: str
    explanation: str
    heading: str
    noun: str
    write: Callable[[float], str]

    @property
    def label(self) -> str:
        """The title of a picture's axis, with what explains it below."""
        return f"{self.title}<br><span style='font-size:0.85em'>{self.explanation}</span>"

    def say(self, value: float) -> str:
        return f"{self.write(value)} {self.noun}"


_MACS = "multiply-accumulates of conv and linear layers and AFI scoring"
_MEMORY = "a training step's peak, float32, the recipe's batch"
_LATENCY = "a forward pass on the target, float32"
_AXES: tuple[tuple[Any, ...], ...] = (
    ("macs", 1e6, "MACs per image, in millions:", _MACS, "MACs, M", "M MACs per image", mega),
    ("params", 1e6, "parameters, in millions", "", "parameters, M", "M parameters", mega),
    ("memory", 1e6, "memory in MB:", _MEMORY, "memory, MB", "MB of memory in training", megabytes),
    ("latency", 1.0, "latency in ms:", _LATENCY, "latency, ms", "ms of latency", "{:,.3f}".format),
)
AXES = {column: CostAxis(column, *words) for column, *words in _AXES}


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


@dataclass(frozen=True)
class StudyView:
    """A study's trials, its facts and all that is said of them, which is worked out once.

    `confirmed` is what its confirmation has found (`read_confirmed`), by the recipe in the
    sentence `confirmed_by`; `audit` what scores have been worth (`afi_search.search.rank.audit`).
    `left_out` says why what there is of these cannot be read.
    """

    records: DataFrame
    info: StudyInfo
    confirmed: DataFrame | None = None
    confirmed_by: str = ""
    audit: DataFrame | None = None
    left_out: Sequence[str] = ()

    @classmethod
    def of(cls, study: Study) -> Self:
        """Read a study, its confirmation and its supernet; a damaged one of these is left out."""
        parts: dict[str, Any] = {}
        left_out = []
        for read in (_confirmed, _audited):
            try:
                parts |= read(study)
            except UserError as error:
                left_out.append(str(error))
        return cls(study.records(), study.info, **parts, left_out=left_out)

    @cached_property
    def references(self) -> References:
        return measure_references(self.info, self.records)

    @cached_property
    def axis(self) -> CostAxis:
        """The axis that the front is drawn over: of its first cost."""
        return axis_named(costs_of(self.records)[0])

    @cached_property
    def full(self) -> DataFrame:
        """The trials of full fidelity."""
        return comparable(self.records)

    @cached_property
    def front(self) -> DataFrame:
        """The trials of the front, cheapest first."""
        return front(self.records)

    @cached_property
    def kinds(self) -> Series:
        """What became of each trial, one of KINDS."""
        ended = self.records["state"].where(self.records["state"].isin(KINDS), UNFINISHED)
        kinds = ended.mask(self.records["full"].astype(bool), OTHERS)
        return kinds.mask(kinds.index.isin(self.front.index), FRONT)

    @cached_property
    def hovers(self) -> Series:
        low, high = self.intervals
        columns = {name: self.records[name].tolist() for name in self.records}
        cells = zip(*columns.values(), strict=True)
        rows = (dict(zip(columns, values, strict=True)) for values in cells)
        trials = zip(self.records.index, rows, low, high, strict=True)
        told = [hover(self._describe(*trial)) for trial in trials]
        return Series(told, index=self.records.index, dtype=object)

    @cached_property
    def intervals(self) -> tuple[Series, Series]:
        """The ends of the 95 % interval around each accuracy, 0 to 1."""
        return interval(self.records["accuracy"].astype(float), self.info.validation_images)

    @cached_property
    def accuracies(self) -> Series:
        """The accuracy of each architecture of full fidelity, 0 to 1, by its text."""
        return self.full.drop_duplicates("architecture").set_index("architecture")["accuracy"]

    @cached_property
    def gains(self) -> dict[Any, str]:
        """What trials have over the plain backbone, in points with 95 % interval, by label."""
        full = self.full
        other = full["backbone"].map(self.accuracies).astype(float)
        low, high = difference(full["accuracy"], other, self.info.validation_images)
        table = 100 * DataFrame({"gain": full["accuracy"] - other, "low": low, "high": high})
        compared = table[(full["architecture"] != full["backbone"]) & other.notna()]
        return {
            label: f"{signed(gain, 1)} ({signed(low, 1)} to {signed(high, 1)})"
            if self.info.validation_images
            else signed(gain, 1)
            for label, gain, low, high in compared.itertuples()
        }

    @property
    def heading(self) -> str:
        names = self.info.backbones
        what = f"{len(names)} backbones" if len(names) > 1 else names[0]
        return f"{self.info.name}: accuracy against cost of {what} with AFI on {self.info.dataset}"

    @property
    def facts(self) -> list[str]:
        """What was run, in short parts."""
        info, states = self.info, self.records["state"].value_counts()
        heirs = int((self.records["init"] == "inherited").sum())
        cost = math.nan if self.audit is None else self.audit.attrs.get("training", math.nan)
        ended = [f"{len(self.full)} of full fidelity ({plural(info.epochs, 'epoch')})"]
        ended += [
            f"{states[name]} {name}"
            for name in ("pruned", "failed", "running", "waiting")
            if name in states
        ]
        numbers = {"training": info.train_images, "validation": info.validation_images}
        images = [f"{number:,} {what}" for what, number in numbers.items() if number is not None]
        parts = [
            f"{plural(len(self.records), 'trial')}: {', '.join(ended)}",
            f"{' and '.join(images)} images" if images else "",
            f"preset {info.preset}" if info.preset else "",
            info.device,
            f"seed {info.seed}",
            f"{plural(heirs, 'trial')} started with inherited weights" if heirs else "",
            f"training the supernet cost {cost:.1f} trials" if math.isfinite(cost) else "",
            "its confirmation or supernet, which is damaged, is left out" if self.left_out else "",
        ]
        return [part for part in parts if part]

    def _describe(self, label: Any, row: Mapping[Any, Any], low: float, high: float) -> list[str]:
        """Say what is known of a trial, in short lines; the architecture comes first."""
        accuracy = f"{percent(row['accuracy'])} % validation accuracy"
        if not row["full"]:
            accuracy += f" after {row['epochs']} of {self.info.epochs} epochs"
        elif self.info.validation_images:
            accuracy += f" (95 %: {percent(low)} to {percent(high)})"
        gain = self.gains.get(label)
        lines = [
            row["architecture"],
            accuracy,
            f"{gain} points over plain {row['backbone']}" if gain else "",
            *self.describe_costs(row, self.references.plain[row["backbone"]]),
            f"trial #{row['number']}, {plural(row['epochs'], 'epoch')}, seed {row['seed']}",
            "started with inherited weights" if row["init"] == "inherited" else "",
        ]
        return list(filter(None, lines))

    def describe_costs(self, costs: Mapping[Any, Any], plain: Cost) -> list[str]:
        """Say what a network costs, a line a cost, beside the plain backbone."""
        macs, params = costs["macs"], costs["params"]
        return [
            f"{mega(macs)} M MACs per image ({against(macs, plain.macs)} vs plain)",
            *(axis.say(costs[axis.column]) for axis in self.measured(costs)),
            f"{count(params)} parameters ({against(params, plain.params)} vs plain)",
            f"{costs['paper_gflops']:.2f} G FLOPs as the paper counts (batch 32)",
        ]

    def measured(self, costs: Mapping[Any, Any]) -> list[CostAxis]:
        """Return those of the costs that only some studies ask for which are known."""
        names = ("memory", "latency", *own_measures())
        return [axis_named(n) for n in names if math.isfinite(costs.get(n, math.nan))]


def _confirmed(study: Study) -> dict[str, Any]:
    if (confirmation := study.confirmation) is None:
        return {}
    from afi_search.promote.confirm_results import read_confirmed

    recipe = confirmation.file.space.recipe
    return {
        "confirmed": read_confirmed(study),
        "confirmed_by": f"Each training: {recipe.epochs} epochs of "
        f"{confirmation.info.train_images or 0:,} images, batches of {recipe.batch_size}.",
    }


def _audited(study: Study) -> dict[str, Any]:
    if study.supernet is None:
        return {}
    from afi_search.search import rank

    return {"audit": rank.audit(study)}


def hover(lines: Sequence[str]) -> str:
    """Return lines as plotly shows them at the pointer, the first one in bold and folded."""
    head = "<br>".join(map(escape, _FOLDED.findall(lines[0])))
    return "<br>".join([f"<b>{head}</b>", *map(escape, lines[1:])])


def interval(accuracy: Any, images: int | None) -> tuple[Any, Any]:
    """Return the 95 % interval (Wilson's) of accuracies, 0 to 1, as counted on so many images.

    It holds the error of drawing these images alone; of an unknown number, it is empty.
    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference,
    JASA 1927; `scipy.stats` has it as well, and takes half a second to import.

    >>> low, high = interval(0.65, 5000)
    >>> f"{low:.4f} to {high:.4f}"
    '0.6367 to 0.6631'
    """
    if not images:
        return accuracy, accuracy
    share = np.round(accuracy * images) / images
    centre = share + Z_95**2 / (2 * images)
    margin = Z_95 * np.sqrt((share * (1 - share) + Z_95**2 / (4 * images)) / images)
    scale = 1 + Z_95**2 / images
    low, high = (centre - margin) / scale, (centre + margin) / scale
    return np.clip(low, 0, accuracy), np.clip(high, accuracy, 1)  # where all or none are right


def difference(one: Any, other: Any, images: int | None) -> tuple[Any, Any]:
    """Return the 95 % interval (Newcombe's) of differences of accuracies, one less the other.

    As if each were counted on so many images of its own; on the same images it is narrower.
    Source: R. G. Newcombe, Interval Estimation for the Difference between Independent Proportions,
    Statistics in Medicine 1998, method 10.

    >>> low, high = difference(0.65, 0.64, 5000)
    >>> f"{low:+.4f} to {high:+.4f}"
    '-0.0088 to +0.0287'
    """
    (low, high), (other_low, other_high) = interval(one, images), interval(other, images)
    down, up = np.hypot(one - low, other_high - other), np.hypot(high - one, other - other_low)
    return one - other - down, one - other + up
