"""What a space file asks of data and networks: checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from afi_search.cost import measure
from afi_search.data import dataset_names, get_source
from afi_search.errors import UserError
from afi_search.search.costs import SpaceCosts
from afi_search.space import Architecture, SpaceFileError
from afi_search.space.checks import Check, Mistake
from afi_search.space.schema import SpaceFile


def check_names(file: SpaceFile) -> Iterator[Mistake]:
    """Yield the data sets that nobody knows."""
    for key in ("name", "fallback"):
        name = getattr(file.data, key)
        try:
            if name is not None:
                get_source(name)
        except UserError as error:
            yield Mistake(("data", key), str(error))


def check_validation(file: SpaceFile) -> Iterator[Mistake]:
    """Yield a validation split that leaves nothing to train on."""
    if file.data.validation is not None and file.data.name in dataset_names():
        images = get_source(file.data.name).train_images
        if file.data.validation >= images:
            yield Mistake(
                ("data", "validation"),
                f"{file.data.validation:,} must be less than the {images:,} training images of "
                f"{file.data.name}",
            )


def check_images(file: SpaceFile) -> Iterator[Mistake]:
    """Yield a backbone that cannot be built for the data set's images."""
    names = [name for name in (file.data.name, file.data.fallback) if name in dataset_names()]
    for name in names if file.backbone is not None else ():
        source = get_source(name)
        try:
            measure(
                Architecture.plain(file.backbone or ""),
                num_classes=source.num_classes,
                image_size=source.image_size,
            )
        except UserError as error:
            yield Mistake(("backbone",), f"{error} ({name})")


CHECKS: tuple[Check, ...] = (
    (("data",), check_names),
    (("data",), check_validation),
    (("backbone", "data"), check_images),
)


def demand_feasible(path: Path, costs: SpaceCosts) -> None:
    """Make sure that there is something to try, and that what is to be tried first may be.

    Raises:
        SpaceFileError: no architecture keeps the constraints, or one of `search.first` does not.
    """
    file = costs.space.file
    limits = ", ".join(f"{name} {limit:,}" for name, limit in file.constraints if limit is not None)
    if costs.feasible == 0:
        cheapest, _ = costs.extremes()
        cost = costs.of(cheapest)
        raise SpaceFileError(
            f"{path}: constraints: none of the {costs.space.size:,} architectures keeps {limits}; "
            f"the cheapest, {cheapest}, has macs {cost.macs:,} and params {cost.params:,}"
        )
    mistakes = [
        f"{path}: search.first: {architecture} has macs {cost.macs:,} and params {cost.params:,}, "
        f"over the constraints ({limits}); take it out, or raise them"
        for architecture in file.search.first
        if not costs.allow(cost := costs.of(architecture))
    ]
    if mistakes:
        raise SpaceFileError("\n".join(mistakes))
