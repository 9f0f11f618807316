r"""Does the short recipe rank architectures as the long one does, and what does each cost?

    python -m benchmarks.recipe_rank spaces/resnet.yaml --architectures 24       a GPU, hours
    python -m benchmarks.recipe_rank spaces/resnet.yaml --backbone resnet20 --architectures 24 \\
        --long 50 --short 5 --short 10 --batch 128 --train-subset 2000 --validation 10000 \\
        --precision bf16 --threads 1                                             a CPU core, hours

Architectures are drawn from the space, the plain backbone and the two uniform ones first. Each is
trained from the same seeds by the space file's own recipe (`long`, 300 epochs), by the preset
`short`, and by the long recipe in as few epochs as the preset has (`long, shortened`): whether the
preset's changes earn their place. `--ablate` adds the preset with one change taken back, for each
of its changes. An accuracy is that after the last epoch on the images held out. The agreement is
Kendall's tau-b over the architectures, with a 95 % interval from a bootstrap over them. With two
`--seeds` or more every recipe is compared with itself as well, one seed with the next: what chance
does to its order bounds how far any other can agree with it. Recipes begin a seed with the same
weights, so that a part of what they agree on can be the seed's: more seeds take it away.

`--short` and `--long` change the number of epochs, `--batch` the preset's batch, its learning rate
in proportion. What is trained is written at once; the same command goes on from there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import torch
import typer
from rich.table import Table
from scipy.stats import kendalltau

from afi_search.data import Split, load, split
from afi_search.data.tensor_source import Normalise, normalised_batches
from afi_search.device import describe_device
from afi_search.nn import build
from afi_search.space import Architecture, Recipe, Space, StageChoice
from afi_search.train import Evaluator, keep_freed_memory, seed_everything, trial_trainer
from benchmarks.rounds import RESULTS, clock, console

LONG, SHORT, SHORTENED = "long", "short", "long, shortened"
CHANGES = {
    "its batch": ("batch_size",),
    "label smoothing": ("label_smoothing",),
    "norms without decay": ("weight_decay_on_norm",),
    "its schedule": ("schedule", "warmup", "drops_at", "drop"),
}
"""What the preset changes in the long recipe, one by one: names for the keys."""

RESAMPLES = 5000
WATCHED = 100
"""Images that the trainer looks at after each epoch; only the last accuracy counts here."""


class Agreement(NamedTuple):
    """Kendall's tau and the ends of its 95 % interval."""

    tau: float
    low: float
    high: float


def agreement(short: Sequence[float], long: Sequence[float], seed: int = 0) -> Agreement:
    """Return how far two recipes' accuracies order the same architectures alike.

    Args:
        short, long: an accuracy per architecture.
        seed: of the bootstrap over architectures. A resample in which one recipe tells nothing
            apart has no tau and is left out.
    """
    pairs = np.array([short, long])
    drawn = np.random.default_rng(seed).integers(0, len(short), (RESAMPLES, len(short)))
    taus = [_tau(*pairs[:, chosen]) for chosen in drawn]
    low, high = np.nanquantile(taus, [0.025, 0.975])
    return Agreement(_tau(*pairs), float(low), float(high))


def pick(space: Space, count: int, seed: int = 0) -> list[Architecture]:
    """Return `count` different architectures of the space, the simplest three first."""
    backbone = space.file.backbone
    assert backbone is not None, "the space has one backbone"
    uniform = [Architecture.uniform(backbone, StageChoice(*c)) for c in (("base", 4), ("B", 16))]
    chosen = dict.fromkeys([Architecture.plain(backbone), *uniform])
    drawn = random.Random(seed).sample(range(len(space)), min(len(space), 2 * count))
    chosen |= dict.fromkeys(space[index] for index in drawn)
    return list(chosen)[:count]


def recipes(
    path: Path,
    short: Sequence[int],
    long: int | None,
    batch: int | None,
    precision: str,
    ablate: bool = False,
) -> list[tuple[str, Recipe]]:
    """Return the recipes with their names, as the space file and the options have them."""
    slow, quick = (
        Space.load(path, preset).file.recipe.model_copy(update={"precision": precision})
        for preset in (None, "short")
    )
    if batch is not None:
        quick = _in_batches(quick, batch)
    named = [(LONG, slow.model_copy(update={"epochs": long or slow.epochs}))]
    quicker = [(SHORT, quick), (SHORTENED, slow)]
    if ablate:
        quicker += [(f"{SHORT} without {name}", _without(name, quick, slow)) for name in CHANGES]
    for epochs in short or [quick.epochs]:
        named += [(name, recipe.model_copy(update={"epochs": epochs})) for name, recipe in quicker]
    return named


def train(
    architecture: Architecture, recipe: Recipe, data: Split, seed: int, device: torch.device
) -> tuple[float, float]:
    """Return the accuracy after the last epoch on all held-out images, and the epochs' seconds."""
    seed_everything(seed)
    spec = data.spec
    model = build(architecture, num_classes=spec.num_classes, image_size=spec.image_size)
    watched = data.validation.select(torch.arange(min(WATCHED, len(data.validation))))
    few = replace(data, validation=watched)
    trainer = trial_trainer(model, recipe, few, seed=seed, device=device)
    now = clock(device)
    started = now()
    while not trainer.done:
        trainer.run_epoch()
    seconds = now() - started
    evaluate = Evaluator(trainer.model, device=device, precision=recipe.precision)
    normalise = Normalise(spec.mean, spec.std, device)
    return evaluate(normalised_batches(data.validation, normalise)).accuracy, seconds


def main(
    space_file: Annotated[Path, typer.Argument(help="The space to draw from.")],
    architectures: Annotated[int, typer.Option(help="How many.", min=3)] = 12,
    seeds: Annotated[int, typer.Option(help="Trainings of each by each recipe.", min=1)] = 1,
    backbone: Annotated[str, typer.Option(help="Another one of as many stages.")] = "",
    short: Annotated[list[int] | None, typer.Option(help="Epochs; can be given again.")] = None,
    long: Annotated[int | None, typer.Option(help="Epochs of the long recipe.")] = None,
    batch: Annotated[int | None, typer.Option(help="The short recipe's batch.")] = None,
    ablate: Annotated[bool, typer.Option(help="Take the preset's changes back by one.")] = False,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or auto.")] = "auto",
    train_subset: Annotated[int | None, typer.Option(help="Training images.")] = None,
    validation: Annotated[int | None, typer.Option(help="Images held out.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's number.")] = 0,
    results: Annotated[Path, typer.Option(help="The CSV's folder.")] = RESULTS,
) -> None:
    """Train every architecture by every recipe and print the agreement."""
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    space = Space.load(space_file)
    if backbone:
        file = space.file.model_copy(update={"backbone": backbone})
        space = Space(file)
    data = split(
        load(space.file.data.name, space.file.data.folder),
        validation=validation,
        train_subset=train_subset,
    )
    ways = recipes(space_file, short or [], long, batch, precision, ablate)
    images = {"train_images": len(data.train), "validation_images": len(data.validation)}
    path = results / "recipe_rank.csv"
    for architecture in pick(space, architectures):
        for seed in range(seeds):
            for name, recipe in ways:
                row = {
                    "architecture": str(architecture),
                    "recipe": name,
                    "epochs": recipe.epochs,
                    "batch": recipe.batch_size,
                    "precision": recipe.precision,
                    **images,
                    "seed": seed,
                }
                if row in _done(path, list(row)):
                    continue
                accuracy, seconds = train(architecture, recipe, data, seed, device)
                figures = {"accuracy": accuracy, "seconds": round(seconds, 1)}
                machine = {"threads": torch.get_num_threads(), "device": describe_device()}
                _append(path, row | figures | machine)
                console.print(f"{architecture}  {name}, {recipe.epochs} epochs  {accuracy:.4f}")
    same = images | {"precision": precision}
    console.print(_table(_trained(path, pick(space, architectures), same)))
    console.print(f"Written: {path}")


def _in_batches(recipe: Recipe, batch: int) -> Recipe:
    rate = recipe.lr * batch / recipe.batch_size
    return recipe.model_copy(update={"batch_size": batch, "lr": rate})


def _without(change: str, quick: Recipe, slow: Recipe) -> Recipe:
    if CHANGES[change] == ("batch_size",):
        return _in_batches(quick, slow.batch_size)
    return quick.model_copy(update={key: getattr(slow, key) for key in CHANGES[change]})


def _tau(short: np.ndarray, long: np.ndarray) -> float:
    if np.ptp(short) == 0 or np.ptp(long) == 0:
        return float("nan")
    return float(kendalltau(short, long).statistic)


def _done(path: Path, keys: list[str]) -> list[dict[str, object]]:
    return pd.read_csv(path)[keys].to_dict("records") if path.exists() else []


def _append(path: Path, row: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False)


def _trained(path: Path, chosen: list[Architecture], same: dict[str, object]) -> pd.DataFrame:
    rows = pd.read_csv(path)
    comparable = (rows[list(same)] == pd.Series(same)).all(axis=1)
    return rows[rows["architecture"].isin(list(map(str, chosen))) & comparable]


def _table(rows: pd.DataFrame) -> Table:
    by_recipe = rows.groupby(["recipe", "epochs", "batch"])
    means = {key: of.groupby("architecture")["accuracy"].mean() for key, of in by_recipe}
    long = next(key for key in means if key[0] == LONG)
    table = Table(title="Short recipe against long", title_justify="left")
    headings = ("recipe", "epochs", "batch", "accuracy", "s each")
    for heading in (*headings, "tau with long", "95 %", "tau of two seeds", "95 %"):
        table.add_column(heading)
    for key, accuracies in means.items():
        of_recipe = by_recipe.get_group(key)
        by_seed = of_recipe.pivot_table("accuracy", "architecture", "seed")
        table.add_row(
            *map(str, key),
            f"{accuracies.min():.3f} to {accuracies.max():.3f}",
            f"{of_recipe['seconds'].median():.0f}",
            *(("", "") if key == long else _compared(accuracies, means[long])),
            *(_compared(by_seed[0], by_seed[1]) if by_seed.shape[1] > 1 else ("", "")),
        )
    return table


def _compared(one: pd.Series, other: pd.Series) -> tuple[str, str]:
    """Say how two rows of accuracies by architecture agree, where both have one."""
    both = pd.concat({"one": one, "other": other}, axis=1).dropna()
    found = agreement(both["one"].tolist(), both["other"].tolist())
    return f"{found.tau:.2f}, n = {len(both)}", f"{found.low:.2f} to {found.high:.2f}"


if __name__ == "__main__":
    typer.run(main)
