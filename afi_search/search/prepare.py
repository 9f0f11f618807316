"""What comes before a search: which preset, which data set, what the architectures cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afi_search.cost import CostTable
from afi_search.data import DataUnavailable, locate, spec_of
from afi_search.search.listener import Listener
from afi_search.space import Space, SpaceFile
from afi_search.space.loading import SpaceDocument

if TYPE_CHECKING:
    from afi_search.cost import SpaceCosts

AUTO, NONE = "auto", "none"


def choose_preset(document: SpaceDocument, asked: str, listener: Listener) -> str | None:
    """Return the preset to take; None for the file as it is.

    Args:
        document: the space file.
        asked: a preset; `auto`: `short` where there is a CUDA device and `smoke` where there is
            none, if the file has it; `none`: no preset.
        listener: is told what `auto` means here.
    """
    if asked == NONE:
        return None
    if asked != AUTO:
        return asked
    import torch

    chosen = "short" if torch.cuda.is_available() else "smoke"
    if chosen not in document.presets:
        return None
    listener.preset_chosen(chosen, document.notes[chosen])
    return chosen


def settle_data(file: SpaceFile, folder: str | None, listener: Listener) -> SpaceFile:
    """Make sure that the data set is there, or take the space file's fallback and tell of it.

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
        listener.data_replaced(error, file.data.name, file.data.fallback)
    fallback = {"name": file.data.fallback, "folder": None, "fallback": None, "validation": None}
    return file.model_copy(update={"data": file.data.model_copy(update=fallback)})


def measure_costs(space: Space, listener: Listener, kept: CostTable | None = None) -> SpaceCosts:
    """Return the costs of a space's architectures: those that a study has kept, or measured now.

    Raises:
        LatencyError: latency is asked for and cannot be measured here.
    """
    from afi_search.cost import SpaceCosts

    spec = spec_of(space.file.data)
    costs = SpaceCosts(
        space,
        num_classes=spec.num_classes,
        image_size=spec.image_size,
        kept=kept,
        progress=listener.measuring,
    )
    listener.costs_measured(costs.table.device)
    return costs
