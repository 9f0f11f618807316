"""AFI-Bench-16: every network of spaces/afi-bench-16.yaml, trained in full and recorded by epoch.

    OMP_NUM_THREADS=1 python -m benchmarks.afi_bench              records, for weeks, on one core
    python -m benchmarks.afi_bench --processes 6                  so many at a time: for a GPU
    python -m benchmarks.afi_bench --analyse                      what is there, and is it enough?

The order of the trainings is fixed (`plan`), and the table is of use at each point of its growth:
the pilot, the 27 combinations of widths, every other network once, and then more seeds. What
studies/afi-bench-16/table.csv.gz has already is not trained again, so that anybody can go on from
what was committed. After each epoch a checkpoint is written: a recorder that is killed loses one
epoch at most, and what it records afterwards is the same bit for bit. The table is written anew
after each training.

Unlike a search, which never reads the test set, this looks at it after each epoch: to say what a
search's choice is worth is what the table is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from io import BytesIO
from itertools import islice, product
from multiprocessing import get_context
from pathlib import Path
from time import process_time
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import typer
from rich.console import Console
from scipy.stats import f as f_distribution

from afi_search.cost import measure
from afi_search.data import Dataset, locate, read_data, split_of
from afi_search.data.tensor_source import Normalise, normalised_batches
from afi_search.device import compute_device, describe_device
from afi_search.files import write_whole
from afi_search.nn import build
from afi_search.space import Architecture, Space, StageChoice
from afi_search.study.facts import gather_facts
from afi_search.study.folder import only_driver
from afi_search.train import (
    delete,
    keep_freed_memory,
    load,
    save,
    seed_everything,
    trial_trainer,
)
from afi_search.train.evaluation import Evaluator

ROOT = Path(__file__).parents[1]
SPACE = ROOT / "spaces" / "afi-bench-16.yaml"
FOLDER = ROOT / "studies" / "afi-bench-16"
TABLE = "table.csv.gz"
WIDTHS = (None, StageChoice("base", 4), StageChoice("B", 16))
PILOT_SEEDS, WIDTH_SEEDS, SEEDS = 4, 3, 8
ENOUGH = 1.5
"""The pilot's networks must spread that many times as much as seeds do."""

COLUMNS = (
    "architecture",
    "seed",
    "epoch",
    "validation_accuracy",
    "test_accuracy",
    "loss",
    "seconds",
    "cpu_seconds",
    "macs",
    "params",
    "commit",
    "torch",
    "device",
)

console = Console()


class Training(NamedTuple):
    """One network and the seed of its weights, batches and crops."""

    architecture: Architecture
    seed: int

    def place(self, folder: Path) -> str:
        """Return where its checkpoints lie."""
        return str(folder / "checkpoints" / f"{self.architecture.slug}-seed{self.seed}")


class Spread(NamedTuple):
    """How a balanced table of networks by seeds varies; accuracies, 0 to 1.

    Attributes:
        networks: standard deviation between networks, that of seeds taken out.
        seeds: standard deviation between the seeds of a network.
        ratio: of the two, with the ends of its 95 % interval.
    """

    networks: float
    seeds: float
    ratio: tuple[float, float, float]


def pilot(backbone: str) -> list[Architecture]:
    """Return the plain backbone, each width everywhere, and each width in one stage alone."""
    everywhere = [Architecture.uniform(backbone, choice) for choice in WIDTHS]
    count = len(everywhere[0].stages)
    alone = (
        Architecture(backbone, (*(None,) * stage, choice, *(None,) * (count - 1 - stage)))
        for choice in WIDTHS[1:]
        for stage in range(count)
    )
    return [*everywhere, *alone]


def plan(space: Space) -> list[Training]:
    """Return every training in the order in which they are recorded, each once."""
    backbone = space.file.backbone
    assert backbone is not None, "the space has one backbone"
    stages = len(space.stage_choices)
    widths = [Architecture(backbone, chosen) for chosen in product(WIDTHS, repeat=stages)]
    every = list(space.architectures())
    rounds = [(pilot(backbone), PILOT_SEEDS), (widths, WIDTH_SEEDS), (every, 1), (every, SEEDS)]
    return list(
        dict.fromkeys(
            Training(architecture, seed)
            for architectures, seeds in rounds
            for seed in range(seeds)
            for architecture in architectures
        )
    )


def read_table(path: Path) -> pd.DataFrame:
    """Return what is recorded, a row for each epoch of each training; no rows without a file."""
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(COLUMNS))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write the table, whole or not at all, and the same bytes for the same rows."""
    content = BytesIO()
    table.to_csv(content, index=False, compression={"method": "gzip", "mtime": 0})
    write_whole(path, content.getvalue())


def recorded(table: pd.DataFrame) -> set[Training]:
    """Return the trainings that the table has."""
    pairs = table[["architecture", "seed"]].drop_duplicates().itertuples(index=False)
    return {Training(Architecture.parse(text), int(seed)) for text, seed in pairs}


@cache
def opened(space_file: Path) -> tuple[Space, Dataset]:
    """Return the space and its images, read once a process."""
    space = Space.load(space_file)
    return space, read_data(space.file.data)


def record(training: Training, space_file: Path, place: str) -> pd.DataFrame:
    """Train one network, or go on from its checkpoint in `place`, and return its rows."""
    torch.set_num_threads(1)
    keep_freed_memory()
    architecture, seed = training
    space, images = opened(space_file)
    device = compute_device()
    data = split_of(space.file.data, images)
    sizes: dict[str, Any] = {
        "num_classes": data.spec.num_classes,
        "image_size": data.spec.image_size,
    }
    seed_everything(seed)
    recipe = space.file.recipe
    trainer = trial_trainer(build(architecture, **sizes), recipe, data, seed=seed, device=device)
    test = Evaluator(trainer.model, device=device, precision=recipe.precision)
    normalise = Normalise(images.spec.mean, images.spec.std, device)
    seen: list[dict[str, float]] = []
    if (state := load(place)) is not None:
        trainer.load_state_dict(state)
        seen = state["seen"]
    while not trainer.done:
        started = process_time()
        result = trainer.run_epoch()
        used = process_time() - started
        tested = test(normalised_batches(images.test, normalise)).accuracy
        seen.append({"test_accuracy": tested, "cpu_seconds": round(used, 1)})
        save({**trainer.state_dict(), "seen": seen}, place)
        console.print(
            f"{architecture} seed {seed} epoch {result.epoch}: {result.accuracy:.4f} validation, "
            f"{seen[-1]['test_accuracy']:.4f} test, {used:.0f} s of CPU, {result.seconds:.0f} s",
            soft_wrap=True,
        )
    cost = measure(architecture, **sizes)
    facts = gather_facts("", describe_device())
    same: dict[str, Any] = {
        "architecture": architecture.text,
        "seed": seed,
        "macs": cost.macs,
        "params": cost.params,
        **{name: facts[name] for name in ("commit", "torch", "device")},
    }
    rows = [
        {
            "epoch": result.epoch,
            "validation_accuracy": result.accuracy,
            "loss": round(result.loss, 5),
            "seconds": round(result.seconds, 1),
            **more,
            **same,
        }
        for result, more in zip(trainer.history, seen, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def recordings(
    trainings: Iterable[Training], space_file: Path, folder: Path, processes: int
) -> Iterator[tuple[Training, pd.DataFrame]]:
    """Yield each training with its rows, as they end, so many processes at work."""
    if processes == 1:
        yield from ((one, record(one, space_file, one.place(folder))) for one in trainings)
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        running = {
            pool.submit(record, one, space_file, one.place(folder)): one for one in trainings
        }
        for ended in as_completed(running):
            yield running[ended], ended.result()


def missing(trainings: Iterable[Training], table: pd.DataFrame) -> Iterator[Training]:
    """Yield the trainings that are not recorded yet, in their order."""
    known = recorded(table)
    return (training for training in trainings if training not in known)


def pilot_accuracies(table: pd.DataFrame, backbone: str, column: str) -> np.ndarray:
    """Return the last epochs' accuracies, networks x seeds, for the seeds that all of them have."""
    names = [architecture.text for architecture in pilot(backbone)]
    last = table[table["epoch"] == table["epoch"].max()]
    by_seed = last.pivot_table(column, "architecture", "seed").reindex(names)
    return by_seed.loc[:, : PILOT_SEEDS - 1].dropna(axis="columns").to_numpy()


def spread(accuracies: np.ndarray) -> Spread:
    """Return the variance components of networks x seeds.

    One-way analysis of variance with networks as random effects; the ratio's interval is the
    exact one of the F distribution.

    Args:
        accuracies: two networks and two seeds at least.
    """
    networks, seeds = accuracies.shape
    within = float(accuracies.var(axis=1, ddof=1).mean())
    between = float(seeds * accuracies.mean(axis=1).var(ddof=1))
    quantiles = f_distribution.ppf([0.975, 0.025], networks - 1, networks * (seeds - 1))

    def ratio(least: float) -> float:
        return float(np.sqrt(max(0.0, between / within / least - 1) / seeds))

    low, high = map(ratio, quantiles)
    return Spread(
        np.sqrt(max(0.0, between - within) / seeds), np.sqrt(within), (ratio(1.0), low, high)
    )


def analyse(table: pd.DataFrame, space: Space) -> str:
    """Return what is recorded, and how far networks differ compared with seeds, in words."""
    known, trainings = recorded(table), plan(space)
    networks = {training.architecture for training in known}
    used = table.groupby("device")["seconds"].median()
    lines = [
        f"{len(known)} of {len(trainings)} trainings are recorded, of {len(networks)} of "
        f"{space.size} networks."
    ]
    lines += [f"Seconds an epoch on {device}: {median:.1f}." for device, median in used.items()]
    assert space.file.backbone is not None
    for column in ("validation_accuracy", "test_accuracy"):
        accuracies = pilot_accuracies(table, space.file.backbone, column) if len(table) else None
        if accuracies is None or accuracies.shape[1] < 2:
            lines.append(f"{column}: the pilot needs two seeds of all its networks.")
            continue
        found = spread(accuracies)
        ratio, low, high = found.ratio
        lines.append(
            f"{column}: {accuracies.shape[0]} networks x {accuracies.shape[1]} seeds: standard "
            f"deviation {100 * found.networks:.2f} points between networks, "
            f"{100 * found.seeds:.2f} between seeds; ratio {ratio:.2f} (95 %: {low:.2f} to "
            f"{high:.2f}), wanted {ENOUGH}."
        )
    return "\n".join(lines)


def main(
    space_file: Annotated[Path, typer.Option("--space", help="The space file.")] = SPACE,
    folder: Annotated[Path, typer.Option(help="Of the table and the checkpoints.")] = FOLDER,
    trainings: Annotated[int | None, typer.Option(help="Stop after so many.", min=1)] = None,
    processes: Annotated[int, typer.Option(help="Trainings at a time.", min=1)] = 1,
    only_analyse: Annotated[
        bool, typer.Option("--analyse", help="Train nothing; say what is recorded.")
    ] = False,
) -> None:
    """Record what is missing, each training on one thread or on the GPU."""
    space = Space.load(space_file)
    path = folder / TABLE
    if only_analyse:
        console.print(analyse(read_table(path), space), soft_wrap=True)
        return
    locate(space.file.data.name, space.file.data.folder)
    with only_driver(folder):
        wanted = islice(missing(plan(space), read_table(path)), trainings)
        for training, rows in recordings(wanted, space_file, folder, processes):
            write_table(pd.concat([read_table(path), rows]) if path.exists() else rows, path)
            delete(training.place(folder))
            console.print(analyse(read_table(path), space), soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
