"""What can be searched, before anything is trained: afi-search spaces | inspect SPACE."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from typing import Any

from rich.filesize import decimal as size

from afi_search.cli.common import Json, Preset, SpaceFile, console
from afi_search.formatting import duration, mega, plural


def spaces(json: Json = False) -> None:
    """List the space files that come with the package.

    Each can be named instead of a path: afi-search run resnet
    """
    from afi_search.space.loading import shipped_spaces

    rows = [
        {"space": name, "what is searched": first_sentence(path.read_text(encoding="utf-8"))}
        for name, path in shipped_spaces().items()
    ]
    console.table_of(rows, json)
    if not json:
        console.say(f"The files are in {next(iter(shipped_spaces().values())).parent}.")


def first_sentence(text: str) -> str:
    """Return the first sentence of the comment that a space file begins with."""
    comment = " ".join(
        line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")
    )
    sentence = re.match(r".*?[.?](?=\s|$)", comment)
    return sentence[0] if sentence else ""


def inspect_space(space: SpaceFile, preset: Preset = "auto", json: Json = False) -> None:
    """Print a space's size, its cheapest and dearest architecture, and what a trial will cost."""
    from afi_search.cli.screen import Screen
    from afi_search.data import spec_of, trained_images
    from afi_search.device import compute_device, describe_device, threads
    from afi_search.search.listener import Listener
    from afi_search.search.prepare import (
        choose_preset,
        images_per_second,
        measure_costs,
        require_feasible,
    )
    from afi_search.space import Architecture, Space
    from afi_search.space.loading import SpaceDocument
    from afi_search.space.objective import goes_up, write_objective
    from afi_search.study.checkpoint_retention import checkpoint_size

    document = SpaceDocument.read(space)
    with nullcontext(Listener()) if json else Screen() as listener:
        searched = Space(document.resolve(choose_preset(document, preset, listener)))
        costs = measure_costs(searched, listener)
    file = searched.file
    source = spec_of(file.data)
    limits = ", ".join(
        f"{name} {'>=' if goes_up(name) else '<='} {write_objective(name, limit)}"
        for name, limit in file.constraints.limits().items()
    )
    kept = "an unknown number of them"
    if costs.feasible is not None:
        kept = f"{costs.feasible:,} of them ({costs.feasible / searched.size:.1%})"
    if not json:
        console.say(
            f"{searched.size:,} architectures, {kept} keep the constraints ({limits or 'none'})."
        )
    require_feasible(space, costs)
    import torch

    from afi_search.engine.capacity import Node, plan_trials

    images = trained_images(source, file.data.validation, file.data.train_subset)
    device = compute_device()
    here = Node(os.cpu_count() or 1, gpus=torch.cuda.device_count())
    each = plan_trials(file.search, [here]).threads
    asked = [*filter(file.asks_for, ("memory", "latency")), *file.own_measures]
    cheapest, dearest = costs.extremes()
    plain = {"plain": Architecture.plain(file.backbone)} if file.backbone is not None else {}
    shown = {**plain, "cheapest": cheapest, "dearest": dearest}
    seen = images * file.recipe.epochs
    figures: list[dict[str, Any]] = []
    for name, architecture in shown.items():
        cost = costs.of(architecture)
        with threads(each):
            speed = images_per_second(architecture, file.recipe, source, device)
        trial = {
            "trial_macs": 3 * cost.macs * seen,
            "trial_seconds": seen / speed,
            "checkpoint_bytes": checkpoint_size(cost.params),
        }
        figures.append(
            {"which": name, "architecture": str(architecture), **cost.figures(), **trial}
        )
    if json:
        console.table_of(figures, json)
        return
    console.say(*(f"{name}: {architecture}" for name, architecture in shown.items()))
    rows = [
        {
            "": of["which"],
            "MACs/image": f"{mega(of['macs'])} M",
            "parameters": f"{of['params']:,}",
            "paper G": f"{of['paper_gflops']:.2f}",
            **{name: write_objective(name, of[name]) for name in asked},
            "MACs of a trial": f"{of['trial_macs']:.1e}",
            "time of a trial": duration(of["trial_seconds"]),
            "checkpoint": size(of["checkpoint_bytes"]),
        }
        for of in figures
    ]
    console.table_of(rows, json)
    beyond = [of["which"] for of in figures if not file.constraints.allow(of)]
    infeasible = f"Infeasible, and never tried: {', '.join(beyond)}. " if beyond else ""
    with_cores = "" if device.type == "cuda" else f"with {plural(each, 'core')}, "
    console.print(
        f"{infeasible}"
        f"A trial: {plural(file.recipe.epochs, 'epoch')} of {images:,} images, batches of "
        f"{file.recipe.batch_size}; its MACs are three times those of the forward passes. Times "
        f"are for one trial on this machine ({describe_device()}), "
        f"{with_cores}from a few measured "
        f"steps, without validation and pruning. Checkpoints are kept of the trials that run and "
        f"of the front.\n"
        f"MACs: multiply-accumulates of conv and linear layers and AFI scoring; paper G: the "
        f"paper's FLOPs in billions, batch 32.",
        style="dim",
    )
