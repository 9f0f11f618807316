"""Confirming a front: the full recipe, several seeds, the test set at the end.

A confirmation is a study of its own in the folder `confirm` of the study it confirms, so that what
is searched and what is confirmed never mix.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from optuna.trial import TrialState
from rich.console import Console

from afi_search.cli.screen import Screen
from afi_search.cost import Cost, measure
from afi_search.data import Dataset, DatasetSpec, locate, read_data, spec_of, split_of
from afi_search.data.tensor_source import Normalise, normalised_batches
from afi_search.device import describe_device
from afi_search.engine.cluster import cluster_nodes, plan_trials, ray_session, require_shared
from afi_search.engine.trial_worker import SharedSplit, TrialConfig
from afi_search.engine.tune import run_trials
from afi_search.errors import UserError, exits_on_mistake
from afi_search.model.from_checkpoint import trial_model, trial_state
from afi_search.promote.confirm_results import (
    confirmed_table,
    shown,
    write_confirmed,
)
from afi_search.search.conductor import Conductor
from afi_search.search.listed import ListedProposer
from afi_search.search.pruners import make_pruner
from afi_search.space import Architecture, SpaceFile
from afi_search.space.schema import Confirm, Pruner, Search
from afi_search.study import Ledger
from afi_search.study.checkpoint_location import check_url, place_of
from afi_search.study.folder import (
    STUDY_FILE,
    StudyFile,
    gather_facts,
    only_driver,
    open_study,
)
from afi_search.study.pareto import front
from afi_search.study.storage import only_client
from afi_search.train import Evaluator

FOLDER = "confirm"
OBJECTIVES = ("accuracy", "macs")

console = Console()


@exits_on_mistake
def confirm(
    study: Annotated[
        Path, typer.Argument(help="A study's folder, like studies/resnet32-cifar100.")
    ],
    top: Annotated[
        int | None,
        typer.Option(help="Confirm only so many of the front, the most accurate.", min=1),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Trainings of each architecture.", min=2)
    ] = None,
    architecture: Annotated[
        list[str] | None,
        typer.Option(help="An architecture to confirm instead of the front; may be repeated."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="The folder of the data sets.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster to join.")] = None,
    checkpoints: Annotated[
        str | None, typer.Option(help="A folder or fsspec URL for the checkpoints, as for run.")
    ] = None,
) -> None:
    """Train a study's front again, by the full recipe with several seeds, and test it."""
    wanted = StudyFile.read(study).space.confirm or Confirm()
    given = {"top": top, "seeds": seeds}
    wanted = wanted.model_copy(update={key: v for key, v in given.items() if v is not None})
    named = [Architecture.parse(text) for text in architecture or ()]
    if not confirm_study(study, wanted, named, data, address, checkpoints):
        console.print("[bold]Interrupted.[/] Nothing is lost; the same command goes on.")
        sys.exit(130)


def confirm_study(
    folder: Path,
    wanted: Confirm,
    named: Sequence[Architecture] = (),
    data: str | None = None,
    address: str | None = None,
    checkpoints: str | None = None,
) -> bool:
    """Confirm a study, or go on with its confirmation; return whether it came to its end.

    Args:
        folder: of the study.
        wanted: how.
        named: architectures to confirm instead of the front.
        data: the folder of the data sets, before the study's own.
        address: of a Ray cluster to join.
        checkpoints: folder or fsspec URL of the checkpoints; the confirmation's folder otherwise.

    Raises:
        UserError: there is nothing to confirm, or the confirmation was begun with other settings.
    """
    study = StudyFile.read(folder)
    source = spec_of(study.space.data)
    origins = to_confirm(folder, study.space, wanted, named)
    own = folder / FOLDER
    name = f"{study.name}-confirm"
    with only_driver(own), only_client(study.storage, name):
        file = confirmation_file(own, study.space, wanted, origins)
        facts = gather_facts(f"afi-search confirm {folder}", describe_device())
        note = f"The front of {study.name} by the full recipe, with {wanted.seeds} seeds."
        asked = StudyFile(name, "", note, file, facts, study.storage, check_url(checkpoints))
        opened = open_study(own, asked, may_change=("architectures",))
        ledger = Ledger.create(own, name, OBJECTIVES, file.search.seed, study.storage)
        console.print(
            f"Confirming [bold]{len(origins)}[/] architectures with {wanted.seeds} seeds each, "
            f"{file.recipe.epochs} epochs a training, in {own}."
        )
        locate(file.data.name, data or file.data.folder)
        images = read_data(file.data, data)
        place = place_of(own, opened.checkpoints)
        finished = _train(ledger, file, place, origins, wanted, source, images, address)
        if finished:
            _test(ledger, own, images)
    report_confirmed(ledger, own, name)
    return finished


def to_confirm(
    folder: Path, file: SpaceFile, wanted: Confirm, named: Sequence[Architecture] = ()
) -> dict[Architecture, str]:
    """Return what is to be confirmed, each with its origin: front, named or baseline.

    Raises:
        UserError: the study has no front yet and nothing is named.
    """
    best = front(Ledger.open(folder).records())
    if wanted.top is not None:
        best = best.nlargest(wanted.top, "accuracy")
    chosen = {} if named else dict.fromkeys(map(Architecture.parse, best["architecture"]), "front")
    chosen |= dict.fromkeys((*wanted.architectures, *named), "named")
    if not chosen:
        raise UserError(
            f"{folder}: no trial has reached full fidelity yet, so there is no front to confirm; "
            f"go on with the study, or name what to confirm with --architecture"
        )
    if wanted.baselines:
        backbones = dict.fromkeys(architecture.backbone for architecture in chosen)
        baselines = (a for backbone in backbones for a in Architecture.baselines(backbone))
        chosen = dict.fromkeys(baselines, "baseline") | chosen
    return chosen


def confirmation_file(
    own: Path, searched: SpaceFile, wanted: Confirm, origins: dict[Architecture, str]
) -> SpaceFile:
    """Return the confirmation as a space file; what an earlier one has confirmed stays in it."""
    before = StudyFile.read(own).space if (own / STUDY_FILE).exists() else SpaceFile()
    seeds = max(wanted.seeds, before.confirm.seeds if before.confirm else 0)
    subsets = {
        "train_subset": wanted.train_subset,
        "validation_subset": wanted.validation_subset,
    }
    architectures = tuple(dict.fromkeys((*before.architectures, *origins)))
    return SpaceFile(
        architectures=architectures,
        data=searched.data.model_copy(update=subsets),
        objectives=OBJECTIVES,
        recipe=wanted.recipe,
        search=Search(
            trials=len(architectures) * seeds,
            sampler="random",
            pruner=Pruner(),
            seed=searched.search.seed,
            concurrency=searched.search.concurrency,
            gpus_per_trial=searched.search.gpus_per_trial,
        ),
        confirm=wanted.model_copy(update={"seeds": seeds}),
    )


def fresh_seeds(searched: int, count: int) -> list[int]:
    """Return seeds that follow the search's own, whose luck chose the front."""
    return [searched + 1 + index for index in range(count)]


def read_confirmed(folder: Path) -> pd.DataFrame:
    """Return what the confirmation of a study has found; no rows where there is none."""
    own = folder / FOLDER
    if not (own / STUDY_FILE).exists():
        return confirmed_table((), {})
    ledger = Ledger.open(own)
    return confirmed_table(ledger.trials(), ledger.tested())


def report_confirmed(ledger: Ledger, own: Path, name: str) -> None:
    """Write and show what is confirmed so far."""
    table = confirmed_table(ledger.trials(), ledger.tested())
    if table.empty:
        return
    paths = write_confirmed(table, own)
    console.print(shown(table, name))
    console.print("Written:", *(f"  {path}" for path in paths), sep="\n", soft_wrap=True)


def _train(
    ledger: Ledger,
    file: SpaceFile,
    place: str,
    origins: dict[Architecture, str],
    wanted: Confirm,
    source: DatasetSpec,
    images: Dataset,
    address: str | None,
) -> bool:
    def cost(architecture: Architecture) -> Cost:
        return measure(architecture, num_classes=source.num_classes, image_size=source.image_size)

    seeds = fresh_seeds(file.search.seed, wanted.seeds)
    proposer = ListedProposer(origins, seeds, cost)
    with Screen(console, file.search.trials, ledger.trials(), file.costs) as screen:
        pruner = make_pruner(file)
        conductor = Conductor(ledger, file, proposer, pruner, screen.changed)
        if not conductor.has_next:
            return True
        shared = SharedSplit(split_of(file.data, images), file.recipe.pad)
        with ray_session(address) as dashboard:
            require_shared(place)
            capacity = plan_trials(file.search, cluster_nodes())
            console.print(f"Ray dashboard: {dashboard}. Ctrl-C stops cleanly.")
            common = TrialConfig(
                file.recipe,
                place,
                capacity.threads,
                file.imports,
                file.imports_from,
                ledger.study.study_name,
                capacity.gpus,
                capacity.memory,
            )
            return run_trials(conductor, common, shared, capacity)


def _test(ledger: Ledger, own: Path, images: Dataset) -> None:
    """Read the test set for every finished training that has not been tested yet."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    normalise = Normalise(images.spec.mean, images.spec.std, device)
    known = ledger.tested()
    for trial in ledger.trials((TrialState.COMPLETE,)):
        if trial.number in known:
            continue
        model = trial_model(own, ledger, trial.number, trial_state(own, trial.number))
        evaluate = Evaluator(model.module.to(device), device=device, precision="fp32")
        reached = evaluate(normalised_batches(images.test, normalise))
        ledger.note_tested(trial.number, reached.accuracy)
