"""The main job, from a space file to a front, and on to ImageNet where the file says so.

python -m afi_search.run SPACE
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.panel import Panel

from afi_search.cli.promote import PrintedPromotion
from afi_search.cli.screen import Screen
from afi_search.cost import CostTable, SpaceCosts
from afi_search.data import DatasetSpec, DataUnavailable, locate, read_data, spec_of, split_of
from afi_search.device import describe_device
from afi_search.engine.cluster import cluster_nodes, plan_trials, ray_session, require_shared
from afi_search.engine.metrics import StudyMetrics, exported
from afi_search.engine.trial_worker import SharedSplit, TrialConfig
from afi_search.engine.tune import run_trials
from afi_search.errors import exits_on_mistake
from afi_search.formatting import size
from afi_search.promote.confirm import confirm_study
from afi_search.promote.promotion import promote_study
from afi_search.report.export import write_report
from afi_search.report.table import front_table
from afi_search.search.checks import CHECKS, demand_feasible
from afi_search.search.conductor import Conductor
from afi_search.search.proposer import Proposer
from afi_search.search.pruners import make_pruner
from afi_search.space import Space, SpaceFile
from afi_search.space.imagenet_recipe import read_recipe
from afi_search.space.loading import SpaceDocument
from afi_search.space.schema import Promote
from afi_search.study import Ledger
from afi_search.study.checkpoint_location import check_url, place_of, size_of
from afi_search.study.checkpoint_retention import CheckpointRetention, disk_use
from afi_search.study.folder import (
    StudyFile,
    gather_facts,
    only_driver,
    open_study,
    study_name,
)
from afi_search.study.info import study_info
from afi_search.study.pareto import costs_of
from afi_search.study.reference import measure_references, reference_point
from afi_search.study.storage import JOURNAL, check_storage, only_client

AUTO, NONE = "auto", "none"

console = Console()


@exits_on_mistake
def run(
    space: Annotated[Path, typer.Argument(help="The space file, like spaces/resnet.yaml.")],
    preset: Annotated[
        str,
        typer.Option(
            help="A preset of the space file; 'auto': 'short' where there is a CUDA device, "
            "'smoke' where there is none; 'none': the file as it is."
        ),
    ] = AUTO,
    name: Annotated[
        str | None, typer.Option(help="The study's name, instead of backbone-data-preset.")
    ] = None,
    studies: Annotated[Path, typer.Option(help="The folder of all studies.")] = Path("studies"),
    data: Annotated[
        str | None,
        typer.Option(help="The folder of the data sets, before the file's and AFI_SEARCH_DATA."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster to join; 'auto' finds it.")
    ] = None,
    storage: Annotated[
        str,
        typer.Option(help="Of the ledger: 'journal', 'sqlite' or postgresql://USER@HOST/DATABASE."),
    ] = JOURNAL,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            help="A folder or fsspec URL for the checkpoints that all machines of a cluster reach, "
            "like s3://bucket/folder; the study's folder otherwise."
        ),
    ] = None,
) -> None:
    """Search a space, or go on with its study, and export the Pareto front.

    With `confirm:` and `promote:` in the space file, go on to confirmed winners on ImageNet.
    """
    document = SpaceDocument.read(space, CHECKS)
    chosen = choose_preset(document, preset)
    loaded = document.resolve(chosen)
    if loaded.promote is not None:
        read_recipe(loaded.promote.recipe)
    file = settle_data(loaded, data)
    if name is not None and file.data.name != loaded.data.name:
        name = f"{name}-{file.data.name}"
    searched = Space(file)
    asked = StudyFile(
        name=name or study_name(file, chosen),
        preset=chosen or "",
        note=document.notes.get(chosen or "", ""),
        space=file,
        facts=gather_facts(
            shlex.join(["python", "-m", "afi_search.run", *sys.argv[1:]]), describe_device()
        ),
        storage=check_storage(storage),
        checkpoints=check_url(checkpoints),
    )
    folder = studies / asked.name
    source = spec_of(file.data)
    costs = measure_costs(searched, source, CostTable.read(folder))
    demand_feasible(space, costs)
    with only_driver(folder), only_client(asked.storage, asked.name):
        study = open_study(folder, asked)
        costs.table.write(folder)
        ledger = Ledger.create(folder, study.name, file.objectives, file.search.seed, study.storage)
        announce(study, searched, costs)
        place = place_of(folder, study.checkpoints)
        keeper = CheckpointRetention(place, file.objectives, ledger.trials())
        metrics = metrics_of(study, ledger)
        with Screen(console, file.search.trials, ledger.trials(), file.costs) as screen:

            def changed(trial: FrozenTrial) -> None:
                keeper.changed(trial)
                screen.changed(trial)
                metrics.changed(trial)

            conductor = Conductor(
                ledger,
                file,
                Proposer(searched, costs, file.objectives),
                make_pruner(file),
                changed,
            )
            finished = True
            if conductor.has_next:
                finished = train(conductor, metrics, study, place, data, address)
            else:
                console.print("The study is complete: there is nothing left to train.")
    report(ledger, study, folder)
    if finished and file.confirm is not None:
        finished = confirm_study(
            folder, file.confirm, data=data, address=address, checkpoints=checkpoints
        )
    if finished and file.promote is not None:
        finished = promote_winners(folder, file.promote, address)
    if not finished:
        console.print("[bold]Interrupted.[/] Nothing is lost; the same command goes on.")
        sys.exit(130)


def choose_preset(document: SpaceDocument, asked: str) -> str | None:
    """Return the preset to take, None for the file as it is; say so where it was chosen here."""
    if asked == NONE:
        return None
    if asked != AUTO:
        return asked
    has_gpu = torch.cuda.is_available()
    chosen = "short" if has_gpu else "smoke"
    if chosen not in document.presets:
        return None
    there_is = "a CUDA device" if has_gpu else "no CUDA device"
    console.print(
        f"There is {there_is}: taking the preset [bold]{chosen}[/]. {document.notes[chosen]}"
    )
    return chosen


def settle_data(file: SpaceFile, folder: str | None) -> SpaceFile:
    """Make sure that the data set is there, or go on with the fallback and say so.

    Raises:
        DataUnavailable: it is not there and the space file names no fallback.
        DataCorrupt: a file of it is not what it should be.
    """
    try:
        locate(file.data.name, folder or file.data.folder)
        return file
    except DataUnavailable as error:
        if file.data.fallback is None:
            raise
        console.print(
            Panel(
                f"{error}\n\nGoing on with [bold]{file.data.fallback}[/], as the space file says. "
                f"[bold]The results are not about {file.data.name}[/]; they go to another study.",
                title=f"{file.data.name} is not there",
                border_style="bold red",
            )
        )
    fallback = {"name": file.data.fallback, "folder": None, "fallback": None, "validation": None}
    return file.model_copy(update={"data": file.data.model_copy(update=fallback)})


def measure_costs(space: Space, source: DatasetSpec, kept: CostTable | None = None) -> SpaceCosts:
    """Return the costs of a space's architectures: those that a study has kept, or measured now.

    Raises:
        LatencyError: latency is asked for and cannot be measured here.
    """
    with console.status("Counting costs") as status:
        costs = SpaceCosts(
            space,
            num_classes=source.num_classes,
            image_size=source.image_size,
            kept=kept,
            progress=status.update,
        )
        device = costs.table.device
    if device:
        console.print(f"Latency: on {device}.")
    return costs


def announce(study: StudyFile, space: Space, costs: SpaceCosts) -> None:
    """Say what is going to be done."""
    search = study.space.search
    console.print(
        f"Study [bold]{study.name}[/]: {search.trials} trials of at most "
        f"{study.space.recipe.epochs} epochs, out of {costs.feasible:,} of "
        f"{space.size:,} architectures; sampler {search.sampler}, pruner {search.pruner.name}."
    )


def metrics_of(study: StudyFile, ledger: Ledger) -> StudyMetrics:
    """Return a study's metrics."""
    records, info = ledger.records(), study_info(study)
    reference = reference_point(measure_references(info, records), info, costs_of(records))
    return StudyMetrics(ledger.trials(), study.space.objectives, reference)


def train(
    conductor: Conductor,
    metrics: StudyMetrics,
    study: StudyFile,
    place: str,
    data: str | None,
    address: str | None,
) -> bool:
    """Run the study's trials on Ray; return whether they all came to their end."""
    file = study.space
    shared = SharedSplit(split_of(file.data, read_data(file.data, data)), file.recipe.pad)
    with ray_session(address) as dashboard, exported(study.name, metrics.samples):
        require_shared(place)
        capacity = plan_trials(file.search, cluster_nodes())
        console.print(
            f"Ray dashboard: [bold]{dashboard}[/]. "
            f"{capacity.concurrency} trials at a time, {capacity.threads} CPU cores and "
            f"{capacity.gpus:g} GPUs each. Ctrl-C stops cleanly."
        )
        common = TrialConfig(
            file.recipe,
            place,
            capacity.threads,
            file.imports,
            file.imports_from,
            study.name,
            capacity.gpus,
            capacity.memory,
        )
        return run_trials(conductor, common, shared, capacity)


def report(ledger: Ledger, study: StudyFile, folder: Path) -> None:
    """Write the front and the trials, and show the front."""
    records, info = ledger.records(), study_info(study)
    paths = write_report(records, info, folder)
    counts = records["state"].value_counts()
    console.print(front_table(records, info))
    if study.note:
        console.print(f"What these numbers are good for: {study.note}")
    rejected = len(ledger.rejected())
    console.print(
        f"{len(records)} trials: "
        + ", ".join(f"{n} {state}" for state, n in counts.items())
        + (f"; {rejected} infeasible architectures were left out" if rejected else "")
    )
    console.print("Written:", *(f"  {path}" for path in paths), sep="\n", soft_wrap=True)
    place = place_of(folder, study.checkpoints)
    console.print(
        f"On disk: {size(disk_use(folder, place))}, {size(size_of(place))} of it checkpoints."
    )


def promote_winners(folder: Path, wanted: Promote, address: str | None) -> bool:
    """Train the winners on ImageNet, or without ImageNet print the one command that goes on."""
    if wanted.data is not None and Path(wanted.data).is_dir():
        listener = PrintedPromotion()
        return promote_study(folder, wanted, address=address, listener=listener)
    where = wanted.data or "the space file names no folder"
    console.print(
        f"ImageNet is not here ({where}). Where it is, this goes on: "
        f"[bold]afi-search promote {folder} --data IMAGENET[/]",
        soft_wrap=True,
    )
    return True
