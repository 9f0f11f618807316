"""How good a front a search finds for its epochs: ours, its parts, and peers, on the same curves.

    python -m benchmarks.search_quality                     generated curves, 20 seeds
    python -m benchmarks.search_quality --sweep             settings of the pruner instead
    python -m benchmarks.search_quality --curves studies/reference/NAME/trials.csv

Two measures, against the epochs that all trials together have been trained:

hypervolume  of the front that the search hands over, in per cent of the whole table's own. The
             front is chosen by the accuracies that the search measured, and valued at the
             architectures' true ones. The reference point lies a tenth of the table's range beyond
             its worst accuracy and its dearest architecture.
regret       points of accuracy between the table's best architecture and the one that the search
             measured as the most accurate.

Only full trainings count. Every contender trains with one seed a search, 4 trials at a time, and
begins with nothing known. Bands are 95 % confidence intervals of the mean over seeds.
"""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
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
from benchmarks.contenders import HAS_SYNE_TUNE, NO_END, RayTune, SyneTune, ours
from benchmarks.curves import CurveTable, generated_table, recorded_table
from benchmarks.rounds import RESULTS
from benchmarks.simulator import Play, Scheduler, play

DATA = "cifar100"
EPOCHS, GRACE, PEERS = 30, 3, 6
BUDGET, WORKERS = 40, 4
STAGES = {
    "all": {"width": ["off", "base", "B"], "ratio": [4, 16], "attention": ["none", "se", "eca"]}
}

Contender = Callable[[Space, SpaceCosts, int], Scheduler]


def own(sampler: str, **pruner: object) -> Contender:
    """Return our conductor with that sampler and pruner."""

    def make(space: Space, costs: SpaceCosts, seed: int) -> Scheduler:
        search = Search.model_validate(
            {
                "trials": NO_END,
                "sampler": sampler,
                "seed": seed,
                "pruner": pruner,
                "baselines": False,
            }
        )
        return ours(space, costs, search)

    return make


def ray_tune(grace: int | None) -> Contender:
    """Return OptunaSearch with ASHAScheduler, or without one where there is no grace period."""
    return lambda space, costs, seed: RayTune(
        space, costs, seed, epochs=space.file.recipe.epochs, grace=grace
    )


def contenders(grace: int) -> dict[str, Contender]:
    """Return who is compared, by name."""
    mo_asha = {"name": "mo-asha", "grace_period": grace, "min_trials": PEERS}
    result = {
        "ours: tpe, mo-asha": own("tpe", **mo_asha),
        "ours: nsga2, mo-asha": own("nsga2", **mo_asha),
        "ours: random, mo-asha": own("random", **mo_asha),
        "ours: tpe, no pruning": own("tpe"),
        "ours: random, no pruning": own("random"),
        "Ray Tune: OptunaSearch, ASHA": ray_tune(grace),
        "Ray Tune: OptunaSearch, no pruning": ray_tune(None),
    }
    if HAS_SYNE_TUNE:
        result["Syne Tune: MOASHA"] = lambda space, costs, seed: SyneTune(
            space, costs, seed, epochs=space.file.recipe.epochs, grace=grace
        )
    return result


def pruner_settings() -> dict[str, Contender]:
    """Return no pruning and settings of ours, with random sampling, by name."""
    settings = {
        f"grace {grace}, reduction {reduction}, peers {peers}": Pruner(
            name="mo-asha", grace_period=grace, reduction_factor=reduction, min_trials=peers
        )
        for grace, reduction, peers in (
            (1, 3, 6), (3, 2, 6), (3, 3, 3), (3, 3, 6), (3, 3, 12), (3, 4, 6), (9, 3, 6),
        )
    }  # fmt: skip
    return {"no pruning": own("random")} | {
        name: own("random", **pruner.model_dump()) for name, pruner in settings.items()
    }


@cache
def prepare(curves: str, epochs: int) -> tuple[Space, SpaceCosts, CurveTable]:
    """Return the space, its costs and its curves.

    Args:
        curves: a trials.csv, or the confusion of generated curves in points.
        epochs: of a full training of generated curves.
    """
    recorded = recorded_table(Path(curves)) if curves.endswith(".csv") else None
    if recorded:
        what = {"architectures": [a.text for a in recorded.architectures]}
        epochs = recorded.epochs
    else:
        what = {"backbone": "resnet32", "stages": STAGES}
    file = SpaceFile.model_validate({**what, "recipe": {"epochs": epochs}})
    space, source = Space(file), dataset_spec(DATA)
    costs = SpaceCosts(space, num_classes=source.num_classes, image_size=source.image_size)
    return space, costs, recorded or generated_table(space, costs, epochs, float(curves))


class Yardstick:
    """Values what a search has found by the table's true accuracies."""

    def __init__(self, table: CurveTable) -> None:
        self._table = table
        losses = np.column_stack([-table.final, table.macs])
        self._low, self._span = losses.min(axis=0), np.ptp(losses, axis=0)
        self._unit = (losses - self._low) / np.where(self._span > 0, self._span, 1.0)
        self._best = self._hypervolume(np.arange(len(losses)))

    def _hypervolume(self, rows: np.ndarray) -> float:
        return float(moocore.hypervolume(self._unit[rows], ref=[1.1, 1.1]))

    def measure(self, played: Play, spent: int) -> tuple[float, float]:
        """Return hypervolume in per cent and regret in points after so many epochs."""
        done = [training for training in played.finished if training.spent <= spent]
        if not done:
            return 0.0, 100 * float(np.ptp(self._table.final))
        rows = np.array([training.row for training in done])
        measured = np.array([training.accuracy for training in done])
        front = moocore.is_nondominated(np.column_stack([-measured, self._table.macs[rows]]))
        picked = self._table.final[rows[measured.argmax()]]
        return (
            100 * self._hypervolume(rows[front]) / self._best,
            100 * float(self._table.final.max() - picked),
        )


def search(job: tuple[str, bool, str, int, int, int]) -> list[dict[str, object]]:
    """Play one contender with one seed; return a row for each full training's worth of epochs."""
    name, sweep, curves, epochs, budget, seed = job
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)
    space, costs, table = prepare(curves, epochs)
    make = (pruner_settings() if sweep else contenders(GRACE))[name]
    played = play(make(space, costs, seed), table, budget=budget * table.epochs, workers=WORKERS)
    yardstick = Yardstick(table)
    rows = []
    for trainings in range(1, budget + 1):
        hypervolume, regret = yardstick.measure(played, trainings * table.epochs)
        rows.append(
            {
                "curves": curves,
                "contender": name,
                "seed": seed,
                "trainings": trainings,
                "hypervolume": hypervolume,
                "regret": regret,
                "full": len(played.finished),
                "trials": played.trials,
                "distinct": played.distinct,
            }
        )
    return rows


def summarise(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Return mean and 95 % confidence interval over seeds, for each contender and budget."""
    grouped = pd.DataFrame(rows).groupby(["curves", "contender", "trainings"], sort=False)
    summary = pd.DataFrame({"seeds": grouped.size()})
    width = student.ppf(0.975, summary["seeds"] - 1) / np.sqrt(summary["seeds"])
    for measure in ("hypervolume", "regret"):
        summary[measure] = grouped[measure].mean()
        summary[f"{measure}_ci"] = width * grouped[measure].std(ddof=1)
    for count in ("full", "trials", "distinct"):
        summary[count] = grouped[count].mean()
    return summary.reset_index()


def plot(summary: pd.DataFrame, label: str, path: Path) -> None:
    """Draw both measures against the epochs spent, with their bands."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    measures = (
        ("hypervolume", "hypervolume, % of the table's optimum"),
        ("regret", "regret, points of accuracy"),
    )
    figure, axes = plt.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
    for axis, (measure, name) in zip(axes, measures, strict=True):
        for contender, rows in summary.groupby("contender", sort=False):
            style = "-" if str(contender).startswith("ours") or "grace" in str(contender) else "--"
            (line,) = axis.plot(rows["trainings"], rows[measure], style, label=contender)
            low, high = (rows[measure] + sign * rows[f"{measure}_ci"] for sign in (-1, 1))
            axis.fill_between(
                rows["trainings"], low, high, color=line.get_color(), alpha=0.12, linewidth=0
            )
        axis.set(xlabel="epochs spent, in full trainings", ylabel=name)
        axis.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)
    axes[0].legend(loc="lower right", fontsize=8)
    figure.suptitle(f"{label}; mean and 95 % band over {summary['seeds'].max()} seeds", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def agreement(curves: Iterable[str], epochs: int) -> pd.DataFrame:
    """Return Kendall's tau between the accuracies at a rung, one seed, and the true final ones."""
    rows = []
    for which in curves:
        table = prepare(which, epochs)[2]
        rungs = [epoch for epoch in (1, 3, 9, 27) if epoch < table.epochs]
        for epoch in (*rungs, table.epochs):
            rows.append(
                {"curves": which, "epoch": epoch, "kendall_tau": table.rank_agreement(epoch)}
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Compare, print a table, and write CSV and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--curves",
        nargs="+",
        help="spread of the head starts of generated curves in points, or a trials.csv",
    )
    parser.add_argument("--sweep", action="store_true", help="compare settings of the pruner")
    parser.add_argument("--only", nargs="+", help="contenders by name")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=BUDGET, help="in full trainings")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of generated curves")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()

    curves = asked.curves or (["0.5", "1", "4"] if asked.sweep else ["1"])
    known = pruner_settings() if asked.sweep else contenders(GRACE)
    if not asked.sweep and not HAS_SYNE_TUNE:
        print("Syne Tune is not installed, and left out.")
    names = asked.only or list(known)
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no contender {', '.join(unknown)}; there are {', '.join(known)}")
    jobs = [
        (name, asked.sweep, which, asked.epochs, asked.budget, seed)
        for which in curves
        for seed in range(asked.seeds)
        for name in names
    ]
    with ProcessPoolExecutor(asked.processes) as pool:
        rows = [row for rows in pool.map(search, jobs) for row in rows]
    summary = summarise(rows)

    asked.out.mkdir(parents=True, exist_ok=True)
    stem = "pruner_settings" if asked.sweep else "search_quality"
    ranks = agreement(curves, asked.epochs)
    summary.round(3).to_csv(asked.out / f"{stem}.csv", index=False)
    ranks.round(3).to_csv(asked.out / f"{stem}_agreement.csv", index=False)
    print(ranks.pivot(index="curves", columns="epoch", values="kendall_tau").round(2).to_string())
    for which, part in summary.groupby("curves", sort=False):
        label = prepare(str(which), asked.epochs)[2].label
        suffix = "" if len(curves) == 1 else f"_{Path(str(which).removesuffix('.csv')).name}"
        plot(part, label, asked.out / f"{stem}{suffix}.png")
        marks = {asked.budget // 4, asked.budget // 2, asked.budget}
        print(f"\n{label}, {asked.seeds} seeds, after full trainings:")
        print(
            part[part["trainings"].isin(marks)]
            .drop(columns="curves")
            .round(2)
            .to_string(index=False)
        )


if __name__ == "__main__":
    main()
