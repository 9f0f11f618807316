"""What ships: afi-search export CHECKPOINT | extract STUDY ARCHITECTURE | predict MODEL IMAGE..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afi_search.cli.common import Data, Imports, StudyFolder, console
from afi_search.formatting import in_a_line


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="STUDY/promote/NAME, STUDY/checkpoints/TRIAL, STUDY/confirm/checkpoints/TRIAL, "
            "one file of these, an fsspec URL, or a folder that was exported before."
        ),
    ],
    to: Annotated[
        Path | None, typer.Option(help="The folder to write; models/ARCHITECTURE otherwise.")
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Fold the batch norms into the convolutions.")
    ] = False,
    onnx: Annotated[bool, typer.Option(help="Write ONNX and check it in onnxruntime.")] = True,
    torch_export: Annotated[bool, typer.Option(help="Write and check torch.export.")] = True,
    imports: Imports = False,
) -> None:
    """Write a model that ships: safetensors, facts and card, ONNX, torch.export."""
    from afi_search.model.from_checkpoint import read_checkpoint
    from afi_search.model.model import EXPORTED, ONNX
    from afi_search.model.onnx import demand_onnx, to_exported, to_onnx

    if onnx:
        demand_onnx()
    model = read_checkpoint(checkpoint, imports=imports)
    if fold:
        model = model.folded()
    folder = to or Path("models") / model.architecture.slug
    others = {ONNX: to_onnx(model)} if onnx else {}
    if torch_export:
        others[EXPORTED] = to_exported(model)
    console.written(model.save(folder, others))
    match model.facts.training:
        case {"epochs": int(epochs), "recipe": {"epochs": int(planned)}} if epochs < planned:
            console.say(f"Its training has not ended: the weights are of epoch {epochs}/{planned}.")


def extract(
    study: StudyFolder,
    architecture: Annotated[str, typer.Argument(help="The text of an architecture of its space.")],
    to: Annotated[
        Path | None, typer.Option(help="The folder to write; models/ARCHITECTURE otherwise.")
    ] = None,
    data: Data = None,
    imports: Imports = False,
) -> None:
    """Write a model with the weights that an architecture inherits from a study's supernet."""
    from afi_search.api import Study

    model = Study.open(study, imports=imports).extract(architecture, data=data)
    console.written(model.save(to or Path("models") / model.architecture.slug))


def predict(
    model: Annotated[Path, typer.Argument(help="A folder that export or promote wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option(help="Number of classes to name for each.", min=1)] = 5,
) -> None:
    """Print the likeliest classes of image files with their probabilities."""
    from afi_search.model import load

    opened = load(model)
    for image in images:
        guesses = (f"{g.label} {100 * g.probability:.1f} %" for g in opened.predict(image, top))
        console.say(f"{in_a_line(image)}: {'; '.join(guesses)}")
