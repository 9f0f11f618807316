"""What a space file asks of data and networks: checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from afi_search.data import dataset_spec, spec_of
from afi_search.errors import UserError
from afi_search.space import SpaceFileError, get_backbone
from afi_search.space.checks import Check
from afi_search.space.mistakes import Mistake
from afi_search.space.objective import goes_up, keeps, own_measures, write_objective
from afi_search.space.schema import SpaceFile

if TYPE_CHECKING:
    from afi_search.cost import SpaceCosts


def check_validation(file: SpaceFile) -> Iterator[Mistake]:
    """Yield a validation split that leaves nothing to train on."""
    if file.data.validation is not None:
        images = dataset_spec(file.data.name).train_images
        if file.data.validation >= images:
            yield Mistake(
                ("data", "validation"),
                f"{file.data.validation:,} must be less than the {images:,} training images of "
                f"{file.data.name}",
            )


def check_images(file: SpaceFile) -> Iterator[Mistake]:
    """Yield a backbone that cannot be built for the data set's images."""
    names = filter(None, (file.data.name, file.data.fallback))
    for name in names if file.backbone is not None else ():
        source = spec_of(file.data.model_copy(update={"name": name}))
        try:
            get_backbone(file.backbone or "").demand_size(source.image_size)
        except UserError as error:
            scaled = file.data.image_size is not None
            where = ("data", "image_size") if scaled else ("backbone",)
            yield Mistake(where, f"{error} ({name})")


def check_supernet(file: SpaceFile) -> Iterator[Mistake]:
    """Yield a strategy that wants a supernet of architectures that have several backbones."""
    backbones = {architecture.backbone for architecture in file.architectures}
    if file.search.strategy != "scratch" and len(backbones) > 1:
        yield Mistake(
            ("search", "strategy"),
            f"{file.search.strategy!r} wants architectures of one backbone, and the list has "
            f"{', '.join(sorted(backbones))}; take 'scratch'",
        )


CHECKS: tuple[Check, ...] = (
    (("data",), check_validation),
    (("backbone", "data"), check_images),
    (("search", "architectures"), check_supernet),
)


def demand_feasible(path: Path, costs: SpaceCosts) -> None:
    """Make sure that there is something to try, and that what is to be tried first may be.

    Raises:
        SpaceFileError: no architecture keeps the constraints, or one of `search.first` does not.
    """
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
