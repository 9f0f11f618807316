"""What comes before a search: which preset, which data set, what architectures cost and take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from afi_search.cost import CostTable
from afi_search.data import DatasetSpec, DataUnavailable, ImageSet, Split, locate, spec_of
from afi_search.search.listener import Listener
from afi_search.space import Architecture, Recipe, Space, SpaceFile, SpaceFileError
from afi_search.space.loading import SpaceDocument
from afi_search.space.objective import goes_up, keeps, own_measures, write_objective

if TYPE_CHECKING:
    import torch

    from afi_search.cost import SpaceCosts

AUTO, NONE = "auto", "none"


def choose_preset(document: SpaceDocument, asked: str, listener: Listener) -> str | None:
    """Return the preset to take; None for the file as it is.

    Args:
        asked: a preset; `none`; or `auto`, of whose meaning the listener hears: `short` where there
            is a CUDA device and `smoke` where there is none, if the file has it.

    Raises:
        UnusableGpu: the machine has a GPU that does not work, so that `auto` cannot choose.
    """
    if asked == NONE:
        return None
    if asked != AUTO:
        return asked
    from afi_search.device import compute_device, require_usable_gpu

    chosen, there_is = {"cuda": ("short", "a"), "cpu": ("smoke", "no")}[compute_device().type]
    if chosen not in document.presets:
        return None
    require_usable_gpu()
    note = document.notes[chosen]
    listener.said(f"There is {there_is} CUDA device: taking the preset {chosen}. {note}")
    return chosen


def settle_data(file: SpaceFile, folder: str | None, listener: Listener) -> SpaceFile:
    """Make sure that the data set is there, or take the space file's fallback and tell of it.

    DataUnavailable: there is no fallback. DataCorrupt: a file is not what it should be.
    """
    try:
        locate(file.data.name, folder or file.data.folder)
        return file
    except DataUnavailable as error:
        if file.data.fallback is None:
            raise
        listener.data_replaced(error, file.data.name, file.data.fallback)
    fallback = {"name": file.data.fallback, "folder": None, "fallback": None, "validation": None}
    return file.model_copy(update={"data": file.data.model_copy(update=fallback)})


def measure_costs(space: Space, listener: Listener, kept: CostTable | None = None) -> SpaceCosts:
    """Return the costs of a space's architectures: those that a study has kept, or measured now."""
    from afi_search.cost import SpaceCosts

    spec = spec_of(space.file.data)
    costs = SpaceCosts(
        space,
        num_classes=spec.num_classes,
        image_size=spec.image_size,
        kept=kept,
        progress=listener.at_work,
    )
    listener.costs_measured(costs.table.device)
    return costs


def require_feasible(path: Path, costs: SpaceCosts) -> None:
    """Raise a SpaceFileError where nothing can be tried, or a limit excludes `search.first`."""
    file = costs.space.file
    limits = file.constraints.limits()
    if not costs.any_feasible:
        least = (
            f"{name} {write_objective(name, limit)}{_least(costs, name)}"
            for name, limit in limits.items()
        )
        raise SpaceFileError(
            f"{path}: constraints: none of the {costs.space.size:,} architectures keeps "
            f"{' and '.join(least)}"
        )
    mistakes = [
        f"{path}: search.first: {architecture} has {', '.join(over)}; take it out, or raise the "
        f"constraints"
        for architecture in file.search.first
        if (over := list(_over(costs.of(architecture).figures(), limits)))
    ]
    if mistakes:
        raise SpaceFileError("\n".join(mistakes))


def _least(costs: SpaceCosts, name: str) -> str:
    if own_measures([name]):
        return ""
    cheapest = costs.least(name)
    cost = costs.of(cheapest).figures()[name]
    return f" (the least is {write_objective(name, cost)}, of {cheapest})"


def _over(cost: Mapping[str, float], limits: Mapping[str, float]) -> Iterator[str]:
    for name, limit in limits.items():
        if not keeps(name, cost[name], limit):
            where = "under" if goes_up(name) else "over"
            has, wanted = write_objective(name, cost[name]), write_objective(name, limit)
            yield f"{name} {has}, {where} {wanted}"


def images_per_second(
    architecture: Architecture, recipe: Recipe, source: DatasetSpec, device: torch.device
) -> float:
    """Return how many images a second a trial trains here, by a few steps of made-up images."""
    import torch

    from afi_search.nn import build
    from afi_search.train import seed_everything, trial_trainer

    def made_up(count: int) -> ImageSet:
        images = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8)
        return ImageSet(images, torch.arange(count) % source.num_classes)

    size = source.image_size
    seed_everything(0)
    model = build(architecture, num_classes=source.num_classes, image_size=size)
    data = Split(source, made_up(3 * recipe.batch_size), made_up(source.num_classes))
    short = recipe.model_copy(update={"epochs": 3})
    trainer = trial_trainer(model, short, data, seed=0, device=device)
    return max(trainer.run_epoch().images_per_second for _ in range(2))  # the first is warm-up
