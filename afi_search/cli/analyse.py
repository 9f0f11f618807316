"""What trained networks have learnt and need: afi-search analyse STUDY [TRIAL...]."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch import Tensor

from afi_search.analysis.blocks import Place
from afi_search.analysis.gradcam import grad_cam
from afi_search.analysis.gradcam_sheet import gradcam_sheet
from afi_search.analysis.selectivity import selectivity_of_blocks
from afi_search.analysis.selectivity_plot import selectivity_plot
from afi_search.analysis.subjects import Subject, load_subjects
from afi_search.analysis.table6 import as_csv, own_table, paper_table6, rich_table
from afi_search.analysis.weights import Reading, mean_weights
from afi_search.analysis.weights_plot import weights_plot
from afi_search.data import DatasetSpec, ImageSet, Split, locate, read_data, spec_of, split_of
from afi_search.data.tensor_source import Normalise
from afi_search.errors import exits_on_mistake
from afi_search.files import write_whole
from afi_search.study.folder import StudyFile

FOLDER = "analysis"
_PLACE = ("trial", "architecture", "stage", "block")
WEIGHT_COLUMNS = (*_PLACE, "source", "weight", "std_over_channels")
SELECTIVITY_COLUMNS = (
    *_PLACE,
    "active_channels",
    "mean",
    "quarter",
    "median",
    "three_quarters",
)
console = Console()


@exits_on_mistake
def analyse(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    trials: Annotated[
        list[str] | None,
        typer.Argument(
            help="One or two trials, by number or by architecture; the most accurate with AFI "
            "otherwise. The study's plain backbone is set beside them."
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Images for Grad-CAM.", min=1, max=12)] = 8,
    data: Annotated[
        str | None,
        typer.Option(help="The folder of the data sets, before the study's and AFI_SEARCH_DATA."),
    ] = None,
    memory: Annotated[
        bool, typer.Option(help="Measure peak memory, the paper's Table 6 among it.")
    ] = True,
) -> None:
    """Write Grad-CAM, class selectivity, AFI's weights and peak memory of trained networks."""
    subjects = load_subjects(study, trials or [])
    file = StudyFile.read(study).space
    source = spec_of(file.data)
    locate(file.data.name, data or file.data.folder)
    held_out = split_of(file.data, read_data(file.data, data))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for subject in subjects:
        subject.model.to(device)
    folder = study / FOLDER
    paths = [
        write_whole(folder / name, content)
        for name, content in (
            draw_gradcam(subjects, held_out, source, images, device)
            | draw_selectivity(subjects, held_out, source, device)
            | draw_weights(subjects, held_out, source, device)
        ).items()
    ]
    if memory:
        paths.append(write_memory(subjects, source, device, folder))
    for subject in subjects:
        console.print(subject.title)
    console.print("Written:", *(f"  {path}" for path in paths), sep="\n", soft_wrap=True)


def draw_gradcam(
    subjects: Sequence[Subject], data: Split, source: DatasetSpec, count: int, device: torch.device
) -> dict[str, str | bytes]:
    """Return the Grad-CAM sheet by its file name, for the first images of as many classes."""
    chosen = first_of_each_class(data.validation, count)
    inputs = _normalise(source, device)(chosen.images.to(device))
    rows = []
    for subject in subjects:
        looks = grad_cam(subject.model, inputs, chosen.labels.to(device))
        guesses = [source.class_name(label) for label in looks.predicted.tolist()]
        rows.append((subject.title, looks, guesses))
    names = [source.class_name(label) for label in chosen.labels.tolist()]
    title = f"Where the networks look: {source.name}, validation images"
    return {"gradcam.png": gradcam_sheet(title, chosen.images, names, rows)}


def draw_selectivity(
    subjects: Sequence[Subject], data: Split, source: DatasetSpec, device: torch.device
) -> dict[str, str | bytes]:
    """Return the distributions of class selectivity, as a picture and as a table."""
    images = data.validation.to(device)
    normalise = _normalise(source, device)
    values = [
        selectivity_of_blocks(subject.model, images, normalise, source.num_classes)
        for subject in subjects
    ]
    networks = list(zip((subject.title for subject in subjects), values, strict=True))
    title = (
        f"Class selectivity of the blocks' outputs: {source.name}, {len(images):,} validation "
        f"images of {source.num_classes} classes"
    )
    return {
        "selectivity.png": selectivity_plot(title, networks),
        "selectivity.csv": _selectivity_csv(subjects, values),
    }


def draw_weights(
    subjects: Sequence[Subject], data: Split, source: DatasetSpec, device: torch.device
) -> dict[str, str | bytes]:
    """Return a heat map of each network with AFI, and all weights as a table."""
    images = data.validation.to(device)
    normalise = _normalise(source, device)
    written: dict[str, str | bytes] = {}
    lines: list[tuple[object, ...]] = []
    for subject in subjects:
        readings = mean_weights(subject.model, images, normalise)
        if readings:
            written[f"weights-{subject.number}.png"] = weights_plot(
                f"What the blocks of {subject.architecture} read", subject.facts, readings
            )
            lines += _weight_lines(subject, readings)
    if written:
        written["weights.csv"] = _csv(WEIGHT_COLUMNS, lines)
    return written


def write_memory(
    subjects: Sequence[Subject], source: DatasetSpec, device: torch.device, folder: Path
) -> Path:
    """Print and write the peak memory of the analysed networks and of the paper's Table 6."""
    architectures = list(dict.fromkeys(subject.architecture for subject in subjects))
    tables = [
        own_table(architectures, source.num_classes, source.image_size, device),
        paper_table6(device),
    ]
    for table in tables:
        console.print(rich_table(table), "")
    return write_whole(folder / "memory.csv", as_csv(tables))


def first_of_each_class(images: ImageSet, count: int) -> ImageSet:
    """Return the first image of each of `count` classes, spread evenly over the labels there are.

    The choice depends on the images alone, not on what any network makes of them.
    """
    labels = images.labels.unique()
    spread = torch.linspace(0, len(labels) - 1, min(count, len(labels))).round().long()
    wanted = labels[spread]
    first = [int((images.labels == label).nonzero()[0]) for label in wanted]
    return images.select(torch.tensor(first))


def _normalise(source: DatasetSpec, device: torch.device) -> Normalise:
    return Normalise(source.mean, source.std, device)


def _selectivity_csv(subjects: Sequence[Subject], values: Sequence[Mapping[Place, Tensor]]) -> str:
    lines = [
        (
            subject.number,
            str(subject.architecture),
            place.stage,
            place.block,
            len(indices),
            *(f"{share:.4f}" for share in _spread(indices)),
        )
        for subject, by_place in zip(subjects, values, strict=True)
        for place, indices in by_place.items()
    ]
    return _csv(SELECTIVITY_COLUMNS, lines)


def _spread(indices: Tensor) -> list[float]:
    if not len(indices):
        return [float("nan")] * 4
    quarters = indices.quantile(indices.new_tensor([0.25, 0.5, 0.75]))
    return [float(indices.mean()), *quarters.tolist()]


def _weight_lines(subject: Subject, readings: Mapping[Place, Reading]) -> list[tuple[object, ...]]:
    return [
        (
            subject.number,
            str(subject.architecture),
            place.stage,
            place.block,
            source,
            f"{mean:.5f}",
            f"{spread:.5f}",
        )
        for place, reading in readings.items()
        for source, mean, spread in zip(
            reading.sources, reading.means, reading.spreads, strict=True
        )
    ]


def _csv(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *lines])
    return stream.getvalue()
