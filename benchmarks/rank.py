"""What scores that cost less than a training say of the order of architectures.

    OMP_NUM_THREADS=1 AFI_SEARCH_DATA=DIR python -m benchmarks.rank

On a table of full trainings (`benchmarks/afi_bench.py` records them, of any space file) it trains
a supernet for each of a few seeds, scores all networks that the table has, and compares. The truth
is a network's test accuracy, the mean over its seeds; where a score is itself of a seed's training,
the mean over the others. How well one seed's full training agrees with that is the ceiling: no
score can be expected above it. Beside tau stands what a score costs, in trainings of one network.

Supernets are checkpointed every epoch and scores are kept, so that a table that has grown is
compared anew for the price of scoring its new networks. Supernets of all numbers of epochs that
were asked for, one in each call, stand beside each other.
"""

from __future__ import annotations

from pathlib import Path
from time import process_time
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import typer
from rich.console import Console
from rich.table import Table

from afi_search.cost import SpaceCosts
from afi_search.data import Split, read_data, split_of
from afi_search.search.cheap_scores import cheap_batch, cheap_scores
from afi_search.search.rank import CHEAP, EPOCHS, INHERITED, rank_table
from afi_search.space import Architecture, Space
from afi_search.train import keep_freed_memory, load, save, seed_everything
from afi_search.train.supernet import InheritedAccuracy, SupernetTrainer, supernet_trainer

RESULTS = Path(__file__).parent / "results"
STUDIES = Path(__file__).parents[1] / "studies"
CPU = torch.device("cpu")
PARTIAL = ("partial", "partial_low", "partial_high")
CEILING = "another seed, all epochs"
FEWEST = 8
"""Networks from which on a tau is told, with an interval that says how little it says."""
KEYS = ["architecture", "epochs", "seed"]
"""What tells scores apart: the network, and the supernet by its epochs and its seed."""
SEED = 100
"""Of the first supernet; the table's trainings have others."""

console = Console()


def trained(
    space: Space, costs: SpaceCosts, data: Split, seed: int, epochs: int, place: str
) -> tuple[SupernetTrainer, float]:
    """Train a supernet, or go on from `place`; return it, and the CPU seconds of its training."""
    seed_everything(seed)
    trainer = supernet_trainer(
        space.file,
        costs.table,
        space[0],
        space.file.recipe.model_copy(update={"epochs": epochs}),
        data,
        seed=seed,
        device=CPU,
    )
    seconds = 0.0
    if (state := load(place)) is not None:
        trainer.load_state_dict(state)
        seconds = state["cpu_seconds"]
    while not trainer.done:
        begun = process_time()
        result = trainer.run_epoch()
        seconds += process_time() - begun
        save({**trainer.state_dict(), "cpu_seconds": seconds}, place)
        console.print(f"supernet, seed {seed}, epoch {result.epoch}: {result.accuracy:.4f}")
    return trainer, seconds


def scored(
    trainer: SupernetTrainer, seconds: float, data: Split, networks: list[Architecture], seed: int
) -> pd.DataFrame:
    """Return a row a network: its scores of this seed, and the CPU seconds that they took."""
    inherit = InheritedAccuracy(trainer.net, data, precision=trainer.recipe.precision, device=CPU)
    images, labels = cheap_batch(data, CPU)
    rows = []
    for network in networks:
        times = [process_time()]
        accuracy = inherit(network).accuracy
        times.append(process_time())
        classes = data.spec.num_classes
        cheap = cheap_scores(network, images, labels, num_classes=classes, seed=seed)
        times.append(process_time())
        rows.append(
            {
                "architecture": network.text,
                "epochs": trainer.recipe.epochs,
                "seed": seed,
                INHERITED: accuracy,
                **cheap,
                "training_seconds": seconds,
                "inherited_seconds": times[1] - times[0],
                "cheap_seconds": times[2] - times[1],
            }
        )
    return pd.DataFrame(rows)


def network_effects(tested: pd.DataFrame) -> pd.Series:
    """Return what networks reach, what their seeds had in common taken out.

    Args:
        tested: networks x seeds, NaN where one is not recorded.
    """
    known = tested.stack().dropna()
    networks, seeds = (pd.get_dummies(known.index.get_level_values(n), dtype=float) for n in (0, 1))
    centred = seeds.iloc[:, 1:] - seeds.iloc[:, 1:].mean()
    fit = np.linalg.lstsq(np.hstack([networks, centred]), known.to_numpy(), rcond=None)[0]
    return pd.Series(fit[: networks.shape[1]], networks.columns)


def compared(table: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rank table of every score, with the mean taus of those that each seed has.

    Args:
        table: of trainings, a row an epoch.
        scores: as `scored` returns them.
    """
    last = int(table["epoch"].max())
    final = table[table["epoch"] == last]
    tested = final.pivot(index="architecture", columns="seed", values="test_accuracy")
    sizes = final.groupby("architecture")[["macs", "params"]].first().astype(float)
    inherited = scores.pivot(index="architecture", columns=["epochs", "seed"], values=INHERITED)
    inherited.columns = [f"{inherited_after(epochs)}/{seed}" for epochs, seed in inherited]
    once = scores.drop_duplicates(["architecture", "seed"])
    cheap = once.pivot(index="architecture", columns="seed", values=list(CHEAP))
    cheap.columns = [f"{name}/{seed}" for name, seed in cheap]
    truth = network_effects(tested)
    found = [rank_table(sizes.join([inherited, cheap]), truth, fewest=FEWEST)]
    for seed in tested if tested.shape[1] > 1 else ():
        own = table[table["seed"] == seed].pivot(
            index="architecture", columns="epoch", values="validation_accuracy"
        )
        early = {f"{after(e)}/{seed}": own[e] for e in EPOCHS if e < last}
        ours = pd.DataFrame({**early, f"{CEILING}/{seed}": own[last]}).join(sizes["macs"])
        others = network_effects(tested.drop(columns=seed)).reindex(ours.index)
        found.append(rank_table(ours, others, fewest=FEWEST).drop("macs", errors="ignore"))
    every = pd.concat(found)
    every["score"] = every.index.str.partition("/").get_level_values(0)
    means = every.groupby("score", sort=False).mean()
    means["seeds"] = every.groupby("score", sort=False).size()
    costs = prices(table, scores)
    means["cost"] = [costs.get(str(name), 0.0) for name in means.index]
    return means


def after(epoch: int) -> str:
    """Return the name of the score that is the accuracy after so many epochs."""
    return f"after {epoch} epoch{'s' * (epoch > 1)}"


def inherited_after(epochs: int) -> str:
    """Return the name of the score that a supernet of so many epochs gives."""
    return f"{INHERITED}, {epochs} epochs"


def prices(table: pd.DataFrame, scores: pd.DataFrame) -> dict[str, float]:
    """Return what each score of all networks costs, in trainings of one network on a CPU."""
    on_cpu = table[~table["device"].str.contains("NVIDIA")]
    training = on_cpu.groupby(["architecture", "seed"])["cpu_seconds"].sum().mean()
    spent = scores.groupby(["epochs", "seed"]).agg(
        {"training_seconds": "first", "inherited_seconds": "sum", "cheap_seconds": "sum"}
    )
    shared = (spent["training_seconds"] + spent["inherited_seconds"]).groupby("epochs").mean()
    networks, last = table["architecture"].nunique(), table["epoch"].max()
    return {
        **{inherited_after(epochs): cost / training for epochs, cost in shared.items()},
        **dict.fromkeys(CHEAP, spent["cheap_seconds"].mean() / training),
        **{after(epoch): networks * epoch / last for epoch in EPOCHS},
        CEILING: float(networks),
    }


def shown(means: pd.DataFrame) -> Table:
    """Return the table to print."""
    table = Table("score", "Kendall's tau", "among equal MACs", "cost, trainings", "seeds")
    for name, row in means.iterrows():
        tau, partial = (
            f"{row[of]:.2f} ({row[low]:.2f} to {row[high]:.2f})" if np.isfinite(row[of]) else ""
            for of, low, high in (("tau", "low", "high"), PARTIAL)
        )
        table.add_row(
            str(name),
            tau,
            partial,
            f"{row['cost']:.1f}",
            f"{row['seeds']:.0f}",
        )
    return table


def plot(means: pd.DataFrame, path: Path, title: str) -> None:
    """Draw tau against cost; what is free stands at the left edge, side by side."""
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    colors = plt.get_cmap("tab20").colors
    axes.set_prop_cycle(color=[*colors[::2], *colors[1::2]])
    at = 0.1 / 1.12
    for name, row in means.sort_values("cost").iterrows():
        at = max(row["cost"], 1.12 * at)
        error = [[row["tau"] - row["low"]], [row["high"] - row["tau"]]]
        axes.errorbar(at, row["tau"], error, fmt="o", capsize=3, label=str(name))
    axes.axhline(0, color="grey", lw=0.8)
    axes.set(
        xscale="log",
        title=title,
        xlabel="cost of scoring all networks, in trainings of one (0.1 to 0.2: next to nothing)",
        ylabel="Kendall's tau with the test accuracy, 95 %",
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=150)


def main(
    space_file: Annotated[Path, typer.Option("--space", help="Space file.")] = RESULTS
    / "digits-27.yaml",
    table_file: Annotated[Path, typer.Option("--table", help="Of its trainings.")] = RESULTS
    / "digits-27.csv.gz",
    seeds: Annotated[int, typer.Option(help="Supernets that are trained.", min=1)] = 3,
    epochs: Annotated[
        int | None, typer.Option(help="Of a supernet; twice a trial's if not given.", min=1)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of tables and plot.")] = RESULTS,
) -> None:
    """Score the networks of a table, and say how the scores order them."""
    torch.set_num_threads(1)
    keep_freed_memory()
    space = Space.load(space_file)
    name = space_file.stem
    table = pd.read_csv(table_file)
    networks = [Architecture.parse(text) for text in table["architecture"].unique()]
    kept = out / f"rank-{name}-scores.csv"
    scores = pd.read_csv(kept) if kept.exists() else pd.DataFrame(columns=KEYS)
    data, costs = None, None
    epochs = epochs or 2 * space.file.recipe.epochs
    for seed in range(SEED, SEED + seeds):
        of_this = (scores["epochs"] == epochs) & (scores["seed"] == seed)
        known = set(scores.loc[of_this, "architecture"])
        if not (left := [network for network in networks if network.text not in known]):
            continue
        data = data or split_of(space.file.data, read_data(space.file.data))
        sizes = {"num_classes": data.spec.num_classes, "image_size": data.spec.image_size}
        costs = costs or SpaceCosts(space, **sizes)
        place = str(STUDIES / f"rank-{name}" / f"{epochs}-epochs-seed-{seed}")
        trainer, seconds = trained(space, costs, data, seed, epochs, place)
        scores = pd.concat([scores, scored(trainer, seconds, data, left, seed)])
        scores.round(6).to_csv(kept, index=False)
    means = compared(table, scores[scores["architecture"].isin(table["architecture"])])
    of_each = table.groupby("architecture")["seed"].nunique()
    title = f"{name}: {len(networks)} networks, {of_each.min()} to {of_each.max()} seeds"
    console.print(title, shown(means))
    means.round(4).to_csv(out / f"rank-{name}.csv")
    plot(means, out / f"rank-{name}.png", title)


if __name__ == "__main__":
    typer.run(main)
