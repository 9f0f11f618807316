"""Pictures and tables of a study's trained networks, side by side with its plain backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from pandas import DataFrame
from torch import Tensor

from afi_search.analysis.gradcam import grad_cam, gradcam_sheet
from afi_search.analysis.memory import as_csv, own_table, paper_table6
from afi_search.analysis.networks import load_models, title, told
from afi_search.analysis.selectivity import selectivity_of_blocks, selectivity_plot
from afi_search.analysis.weights import mean_weights, weights_plot
from afi_search.data import DatasetSpec, ImageSet, locate, read_data, split_of
from afi_search.data.tensor_source import Normalise
from afi_search.device import compute_device
from afi_search.files import csv_of, write_together
from afi_search.model import Model
from afi_search.study.folder import StudyFile

FOLDER = "analysis"
QUARTERS = ("quarter", "median", "three_quarters")

Files = dict[str, str | bytes]
"""Contents by file name."""


@dataclass(frozen=True)
class Analysis:
    """The networks, the plain backbone first; their peak memory and Table 6's; what to write."""

    models: Sequence[Model]
    tables: Sequence[DataFrame]
    files: Files

    def write(self, study: Path) -> list[Path]:
        return write_together(study / FOLDER, self.files)


def analyse_study(
    study: Path,
    trials: Sequence[str] = (),
    *,
    images: int = 8,
    data: str | Path | None = None,
    memory: bool = True,
) -> Analysis:
    """Work out Grad-CAM maps, class selectivity, AFI's weights, peak memory of trained networks.

    Of one or two trials, by number or architecture, or the most accurate with AFI; Grad-CAM of so
    many `images`, each of another class.
    """
    models = load_models(study, trials)
    settings = StudyFile.read(study).space.data
    locate(settings.name, data or settings.folder)
    held_out = split_of(settings, read_data(settings, data))
    spec = held_out.spec
    device = compute_device()
    for network in models:
        network.to(device)
    validation = held_out.validation.to(device)
    normalise = Normalise(spec.mean, spec.std, device)
    files = gradcam_files(models, first_of_each_class(validation, images), spec, normalise)
    files |= selectivity_files(models, validation, spec, normalise)
    files |= weight_files(models, validation, normalise)
    tables = []
    if memory:
        architectures = list(dict.fromkeys(network.architecture for network in models))
        own = own_table(architectures, spec.num_classes, spec.image_size, device)
        tables = [own, paper_table6(device)]
        files["memory.csv"] = as_csv(tables)
    return Analysis(models, tables, files)


def first_of_each_class(images: ImageSet, count: int) -> ImageSet:
    """Return the first image of each of `count` classes, spread evenly over those there are."""
    labels = images.labels.unique()
    spread = torch.linspace(0, len(labels) - 1, min(count, len(labels))).round().long()
    first = [int((images.labels == label).nonzero()[0]) for label in labels[spread]]
    return images.select(torch.tensor(first))


def gradcam_files(
    models: Sequence[Model], images: ImageSet, spec: DatasetSpec, normalise: Normalise
) -> Files:
    inputs = normalise(images.images)
    rows = []
    for network in models:
        result = grad_cam(network.module, inputs, images.labels)
        guesses = [spec.class_name(label) for label in result.predicted.tolist()]
        rows.append((title(network), result, guesses))
    names = [spec.class_name(label) for label in images.labels.tolist()]
    above = f"Where the networks look: {spec.name}, validation images"
    return {"gradcam.png": gradcam_sheet(above, images.images.cpu(), names, rows)}


def selectivity_files(
    models: Sequence[Model], images: ImageSet, spec: DatasetSpec, normalise: Normalise
) -> Files:
    """Return the distributions of class selectivity by block, as a picture and as a table."""
    networks, rows = [], []
    for network in models:
        by_block = selectivity_of_blocks(network.module, images, normalise, spec.num_classes)
        networks.append((title(network), by_block))
        place = {
            "trial": network.facts.training["trial"],
            "architecture": network.facts.architecture,
        }
        rows += [place | index._asdict() | _distribution(of) for index, of in by_block.items()]
    above = (
        f"Class selectivity of the blocks' outputs: {spec.name}, {len(images):,} validation "
        f"images of {spec.num_classes} classes"
    )
    return {
        "selectivity.png": selectivity_plot(above, networks),
        "selectivity.csv": _csv(DataFrame(rows), digits=4),
    }


def weight_files(models: Sequence[Model], images: ImageSet, normalise: Normalise) -> Files:
    """Return a heat map of each network with AFI, and the weights of all as a table."""
    files: Files = {}
    tables = []
    for network in models:
        weights = mean_weights(network.module, images, normalise)
        if len(weights):
            number, text = network.facts.training["trial"], network.facts.architecture
            above = f"What the blocks of {text} read"
            files[f"weights-{number}.png"] = weights_plot(above, told(network), weights)
            weights.insert(0, "trial", number)
            weights.insert(1, "architecture", text)
            tables.append(weights)
    return {**files, "weights.csv": _csv(pd.concat(tables), digits=5)} if tables else {}


def _distribution(indices: Tensor) -> dict[str, float]:
    quarters = [float("nan")] * len(QUARTERS)
    if len(indices):
        quarters = indices.quantile(indices.new_tensor([0.25, 0.5, 0.75])).tolist()
    mean = {"active_channels": len(indices), "mean": float(indices.mean())}
    return {**mean, **dict(zip(QUARTERS, quarters, strict=True))}


def _csv(table: DataFrame, digits: int) -> str:
    return csv_of(table, float_format=f"%.{digits}f", na_rep="nan")
