"""Where AFI pays, by the trainings of AFI-Bench-16.

    python -m benchmarks.where_afi_pays

effects    of each stage's choice on the test accuracy after the last epoch: a mixed linear model,
           additive in the stages and the seeds, with a random part for each network, which holds
           what is not additive.
rivals     networks of the front that need no more MACs than one of the paper's own placements, the
           same choice in every stage, as a report counts them: 0.1 % is no difference. They are
           chosen by validation accuracy and valued by test accuracy.
agreement  of the validation accuracies after each epoch with the test accuracies after the last
           one, as Kendall's tau over networks; trainings of one seed are compared.

Needs statsmodels (extra `bench`). The tables are written to results/where_afi_pays-*.csv, the
pictures of docs/afi-bench-16.md to docs/assets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
import typer
from scipy.stats import kendalltau
from scipy.stats import t as student

from afi_search.space import Architecture
from afi_search.study.pareto import SAME_COST, front
from benchmarks.afi_bench import FOLDER, TABLE, read_table
from benchmarks.rounds import RESULTS, console

PAPER = ("base-r4", "B-r16")
PICTURE = Path(__file__).parents[1] / "docs" / "assets" / "where_afi_pays.png"
RESAMPLES = 1000


def last_epoch(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each training: its choices by stage, accuracies in per cent, and MACs."""
    last = table[table["epoch"] == table["epoch"].max()].reset_index(drop=True)
    choices = [Architecture.parse(text).choice_texts for text in last["architecture"]]
    stages = pd.DataFrame(choices).rename(columns=lambda k: f"stage{k + 1}")
    accuracies = 100 * last[["validation_accuracy", "test_accuracy"]]
    return pd.concat([last[["architecture", "seed", "macs"]], accuracies, stages], axis="columns")


def effects(trainings: pd.DataFrame) -> pd.DataFrame:
    """Return what each stage's choice adds to `off`, in points of test accuracy."""
    model = smf.mixedlm(_additive(trainings), trainings, groups="architecture").fit()
    intervals = model.conf_int()
    rows = [
        {
            "stage": int(name[len("C(stage")]),
            "choice": name.split("[T.")[1].rstrip("]"),
            "points": model.params[name],
            "low": intervals.loc[name, 0],
            "high": intervals.loc[name, 1],
        }
        for name in model.params.index
        if name.startswith("C(stage")
    ]
    return pd.DataFrame(rows)


def _additive(trainings: pd.DataFrame) -> str:
    stages = [name for name in trainings if str(name).startswith("stage")]
    terms = (f"C({stage}, Treatment('off'))" for stage in stages)
    return " + ".join(["test_accuracy ~ C(seed)", *terms])


def networks(trainings: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
    """Return a row for each network, and the fit behind its test accuracy, `points`.

    The fit has a mean for each network and the seeds' deviations from it, which all networks share,
    so that networks with few seeds compare with those that have more.
    """
    fit = smf.ols("test_accuracy ~ 0 + architecture + C(seed, Sum)", trainings).fit()
    grouped = trainings.groupby("architecture")
    means = grouped[["macs", "validation_accuracy"]].mean()
    means["seeds"] = grouped.size()
    means["points"] = fit.params.iloc[: len(means)].to_numpy()
    means[["low", "high"]] = fit.conf_int().iloc[: len(means)].to_numpy()
    return means, fit


def rivals(trainings: pd.DataFrame, means: pd.DataFrame, own: Any) -> pd.DataFrame:
    """Return how the front's networks compare with the paper's placements that cost as much.

    Twice: by the networks' own trainings, and by what the additive model expects of them, which
    has the trainings of all networks behind it.

    Args:
        trainings: as `last_epoch` returns them.
        means, own: as `networks` does.
    """
    additive = smf.ols(_additive(trainings), trainings).fit()
    measured = means.rename(columns={"validation_accuracy": "accuracy"}).reset_index()
    best = front(measured.assign(full=True)).set_index("architecture")["macs"]
    first = trainings.index[trainings["seed"] == 0]
    row = pd.Series(first, index=trainings.loc[first, "architecture"])
    rows = []
    for choice in PAPER:
        paper = f"resnet20({choice})"
        bound = means.loc[paper, "macs"]
        for name in best.index[best < bound * (1 + SAME_COST)].drop(paper, errors="ignore"):
            for model, fit in (("own trainings", own), ("additive", additive)):
                difference = fit.t_test(fit.model.exog[row[name]] - fit.model.exog[row[paper]])
                low, high = difference.conf_int()[0]
                rows.append(
                    {
                        "network": name,
                        "placement": choice,
                        "macs": means.loc[name, "macs"] / bound,
                        "model": model,
                        "points": difference.effect[0],
                        "low": low,
                        "high": high,
                        "certainty": student.cdf(difference.tvalue.item(), fit.df_resid),
                    }
                )
    return pd.DataFrame(rows)


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Return tau after each epoch, the mean over seeds, with an interval of resampled networks."""
    last = table["epoch"].max()
    draw = np.random.default_rng(0)
    by_seed = []
    for _, of in table.groupby("seed"):
        seen = of.pivot_table("validation_accuracy", "architecture", "epoch")
        truth = of[of["epoch"] == last].set_index("architecture")["test_accuracy"]
        by_seed.append((seen.to_numpy(), truth[seen.index].to_numpy()))
    rows = []
    for epoch in range(last):
        drawn = [
            np.average(taus, weights=[len(truth) for _, truth in by_seed])
            for taus in (
                [
                    _tau(seen[:, epoch], truth, draw if resampled else None)
                    for seen, truth in by_seed
                ]
                for resampled in range(RESAMPLES + 1)
            )
        ]
        low, high = np.quantile(drawn[1:], [0.025, 0.975])
        rows.append({"epoch": epoch + 1, "tau": drawn[0], "low": low, "high": high})
    return pd.DataFrame(rows)


def _tau(seen: np.ndarray, truth: np.ndarray, draw: np.random.Generator | None) -> float:
    chosen = slice(None) if draw is None else draw.integers(len(truth), size=len(truth))
    return float(kendalltau(seen[chosen], truth[chosen]).statistic)


def plot(found: pd.DataFrame, means: pd.DataFrame, agreed: pd.DataFrame, path: Path) -> None:
    """Draw effects, networks and agreement side by side."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(16, 4.8), layout="constrained")
    choices = list(found["choice"].unique())
    for k, choice in enumerate(choices):
        of = found[found["choice"] == choice]
        at = of["stage"] + 0.15 * (k - (len(choices) - 1) / 2)
        reach = [of["points"] - of["low"], of["high"] - of["points"]]
        left.errorbar(at, of["points"], reach, fmt="o", capsize=3, label=choice)
    left.axhline(0, color="gray", linewidth=0.8)
    left.set(xlabel="stage", xticks=sorted(found["stage"].unique()))
    left.set(ylabel="points of test accuracy over `off`", title="Effect of each stage's choice")
    left.legend()

    alike = means.groupby("macs")["points"].rank() - 1  # side by side, where several cost the same
    macs = means["macs"] / 1e6 + 0.08 * alike
    middle.plot(macs, means["points"], "o", color="0.6", markersize=4)
    best = str(means["validation_accuracy"].idxmax())
    shown = {
        "resnet20": ("D", "plain"),
        **{
            f"resnet20({choice})": ("D", f"{choice} everywhere, as in the paper")
            for choice in PAPER
        },
        best: ("*", f"{best.removeprefix('resnet20')}, the best in validation"),
    }
    for name, (marker, label) in shown.items():
        points, low, high = means.loc[name, ["points", "low", "high"]]
        reach = [[points - low], [high - points]]
        middle.errorbar(macs[name], points, reach, fmt=marker, markersize=9, label=label)
    middle.set(xlabel="million MACs", ylabel="test accuracy, %")
    fewest, most = means["seeds"].min(), means["seeds"].max()
    middle.set_title(f"{len(means)} networks, {fewest} to {most} seeds; of some, 95 %")
    middle.legend(fontsize=8, loc="upper left")

    right.plot(agreed["epoch"], agreed["tau"], "o-")
    right.fill_between(agreed["epoch"], agreed["low"], agreed["high"], alpha=0.15, linewidth=0)
    right.axhline(0, color="gray", linewidth=0.8)
    right.set(xlabel="epoch", ylabel="Kendall's tau", title="Order after an epoch and at the end")
    for axis in (left, middle, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """Print the tables, write them, and draw the pictures."""
    table = read_table(FOLDER / TABLE)
    trainings = last_epoch(table)
    means, own = networks(trainings)
    found, compared = effects(trainings), rivals(trainings, means, own)
    agreed = agreement(table)
    plot(found, means, agreed, PICTURE)
    console.print(f"{len(trainings)} trainings of {len(means)} networks")
    parts = {"effects": found, "rivals": compared, "agreement": agreed, "networks": means}
    for name, part in parts.items():
        part.round(4).to_csv(RESULTS / f"where_afi_pays-{name}.csv", index=name == "networks")
        console.print(f"\n{name}\n{part.round(3).to_string()}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    typer.run(main)
