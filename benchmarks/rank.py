"""What scores that cost less than a training say of the order of architectures.

    OMP_NUM_THREADS=1 AFI_SEARCH_DATA=DIR python -m benchmarks.rank

On a table of full trainings (`benchmarks/afi_bench.py` records them, of any space file) it trains
a supernet for each of a few seeds, scores all networks that the table has, and compares. The truth
is a network's test accuracy, the mean over its seeds; where a score is itself of a seed's training,
the mean over the others. How well one seed's full training agrees with that is the ceiling: no
score can be expected above it. Beside tau stands what a score costs, in trainings of one network.
"""

from __future__ import annotations

from pathlib import Path
from time import process_time
from typing import Annotated

import matplotlib.pyplot as plt
import pandas as pd
import torch
import typer
from rich.console import Console
from rich.table import Table

from afi_search.cost import SpaceCosts
from afi_search.data import Split, read_data, split_of
from afi_search.data.tensor_source import Normalise, normalised_batches
from afi_search.search.cheap_scores import IMAGES, cheap_scores
from afi_search.search.rank import CHEAP, EPOCHS, INHERITED, rank_table
from afi_search.space import Architecture, Space
from afi_search.train import keep_freed_memory, seed_everything
from afi_search.train.supernet import InheritedAccuracy, SupernetJob, calibration_images

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
CEILING = "another seed, all epochs"
SEED = 100
"""Of the first supernet; the table's trainings have others."""

console = Console()


def inherited(
    space: Space, costs: SpaceCosts, data: Split, networks: list[Architecture], seed: int
) -> tuple[pd.Series, float]:
    """Train a supernet; return what the networks inherit, and the CPU seconds that it all took."""
    begun = process_time()
    seed_everything(seed)
    recipe = space.file.recipe
    epochs = space.file.search.supernet.epochs or 2 * recipe.epochs
    trainer = SupernetJob(space.file, costs.table).trainer(
        networks[0], recipe.model_copy(update={"epochs": epochs}), data, seed=seed, device=CPU
    )
    while not trainer.done:
        result = trainer.run_epoch()
        console.print(f"supernet, seed {seed}, epoch {result.epoch}: {result.accuracy:.4f}")
    accuracy = InheritedAccuracy(trainer.net, data, precision=recipe.precision, device=CPU)
    scores = {network.text: accuracy(network).accuracy for network in networks}
    return pd.Series(scores), process_time() - begun


def cheap(data: Split, networks: list[Architecture], seed: int) -> tuple[pd.DataFrame, float]:
    """Return the scores of the untrained networks, and the CPU seconds that they took."""
    begun = process_time()
    normalise = Normalise(data.spec.mean, data.spec.std, CPU)
    ((images, labels),) = normalised_batches(calibration_images(data, IMAGES), normalise, IMAGES)
    classes = data.spec.num_classes
    rows = {
        network.text: cheap_scores(network, images, labels, num_classes=classes, seed=seed)
        for network in networks
    }
    return pd.DataFrame.from_dict(rows, orient="index"), process_time() - begun


def compared(table: pd.DataFrame, scores: pd.DataFrame, costs: dict[str, float]) -> pd.DataFrame:
    """Return the rank table of every score, with the mean taus of those that each seed has.

    Args:
        table: of trainings, a row an epoch.
        scores: a row a network; a column a score, or `score/seed` for one that several seeds have.
        costs: of each score, in trainings.
    """
    last = int(table["epoch"].max())
    tested = table[table["epoch"] == last].pivot(
        index="architecture", columns="seed", values="test_accuracy"
    )
    tested = tested.loc[:, tested.notna().all()].reindex(scores.index)
    found = [rank_table(scores, tested.mean(axis=1), {})]
    for seed in tested.columns if tested.shape[1] > 1 else ():
        own = table[table["seed"] == seed].pivot(
            index="architecture", columns="epoch", values="validation_accuracy"
        )
        early = {f"after {e} epoch{'s' * (e > 1)}/{seed}": own[e] for e in EPOCHS if e < last}
        columns = pd.DataFrame({**early, f"{CEILING}/{seed}": own[last]}).reindex(scores.index)
        columns["macs"] = scores["macs"]
        found.append(rank_table(columns, tested.drop(columns=seed).mean(axis=1), {}).drop("macs"))
    every = pd.concat(found)
    every["score"] = every.index.str.partition("/").get_level_values(0)
    means = every.groupby("score", sort=False).mean()
    means["seeds"] = every.groupby("score", sort=False).size()
    networks = len(scores)
    for epoch in EPOCHS:
        costs[f"after {epoch} epoch{'s' * (epoch > 1)}"] = networks * epoch / last
    costs[CEILING] = float(networks)
    means["cost"] = [costs.get(name, 0.0) for name in means.index]
    return means


def shown(means: pd.DataFrame) -> Table:
    """Return the table to print."""
    table = Table("score", "Kendall's tau", "among equal MACs", "cost, trainings", "seeds")
    for name, row in means.iterrows():
        table.add_row(
            str(name),
            f"{row['tau']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
            f"{row['partial']:.2f} ({row['partial_low']:.2f} to {row['partial_high']:.2f})",
            f"{row['cost']:.1f}",
            f"{row['seeds']:.0f}",
        )
    return table


def plot(means: pd.DataFrame, path: Path, title: str) -> None:
    """Draw tau against cost; what is free stands at the left edge."""
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    least = 0.1
    for name, row in means.iterrows():
        at = max(row["cost"], least)
        error = [[row["tau"] - row["low"]], [row["high"] - row["tau"]]]
        axes.errorbar(at, row["tau"], error, fmt="o", capsize=3, label=str(name))
    axes.axhline(0, color="grey", lw=0.8)
    axes.set(
        xscale="log",
        title=title,
        xlabel="cost of scoring all networks, in trainings of one (0.1: free)",
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
    out: Annotated[Path, typer.Option(help="Folder of rank.csv and rank.png.")] = RESULTS,
) -> None:
    """Score the networks of a table, and say how the scores order them."""
    torch.set_num_threads(1)
    keep_freed_memory()
    space = Space.load(space_file)
    data = split_of(space.file.data, read_data(space.file.data))
    costs = SpaceCosts(space, num_classes=data.spec.num_classes, image_size=data.spec.image_size)
    table = pd.read_csv(table_file)
    networks = [Architecture.parse(text) for text in table["architecture"].unique()]
    training = table.groupby(["architecture", "seed"])["cpu_seconds"].sum().mean()
    scores = table.groupby("architecture", sort=False)[["macs", "params"]].first().astype(float)
    spent = dict.fromkeys(CHEAP, 0.0)
    for seed in range(SEED, SEED + seeds):
        column, seconds = inherited(space, costs, data, networks, seed)
        scores[f"{INHERITED}/{seed}"] = column
        spent[INHERITED] = spent.get(INHERITED, 0.0) + seconds / training / seeds
        columns, seconds = cheap(data, networks, seed)
        for name in CHEAP:
            scores[f"{name}/{seed}"] = columns[name]
            spent[name] += seconds / training / seeds
    means = compared(table, scores, spent)
    trained = table.groupby("architecture")["seed"].nunique()
    title = f"{space_file.stem}: {len(networks)} networks, {trained.min()} to {trained.max()} seeds"
    console.print(title, shown(means))
    name = space_file.stem
    means.round(4).to_csv(out / f"rank-{name}.csv")
    plot(means, out / f"rank-{name}.png", title)


if __name__ == "__main__":
    typer.run(main)
