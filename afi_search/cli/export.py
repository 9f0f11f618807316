"""Exporting what a checkpoint holds: afi-search export CHECKPOINT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from afi_search.errors import UserError, exits_on_mistake
from afi_search.model.from_checkpoint import trial_model, trial_state
from afi_search.model.model import FACTS, Model, ModelError
from afi_search.model.model import load as load_model
from afi_search.model.onnx import write_exported, write_onnx
from afi_search.model.promoted import promoted_model
from afi_search.study import Ledger
from afi_search.study.checkpoint_location import IN_THE_FOLDER
from afi_search.study.folder import STUDY_FILE
from afi_search.train import load
from afi_search.train.checkpoint import load_file

console = Console()


@exits_on_mistake
def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="STUDY/promote/NAME, STUDY/confirm/checkpoints/NUMBER, one file of these, an "
            "fsspec URL, or a folder that was exported before."
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
) -> None:
    """Write a model that ships: safetensors, facts and card, ONNX, torch.export."""
    model = read_checkpoint(checkpoint)
    if fold:
        model = model.folded()
    folder = to or Path("models") / model.architecture.slug
    paths = model.save(folder)
    if onnx:
        paths.append(write_onnx(model, folder))
    if torch_export:
        paths.append(write_exported(model, folder))
    console.print("Written:", *(f"  {path}" for path in paths), sep="\n", soft_wrap=True)


def read_checkpoint(place: str) -> Model:
    """Return the network of a checkpoint: of a promotion, of a trial, or an exported folder.

    Raises:
        ModelError: there is no checkpoint of a promotion or of a trial whose study is here.
        NoCheckpoint: the trial's weights are not kept.
        CorruptCheckpoint: there is one that cannot be read.
    """
    if (Path(place) / FACTS).is_file():
        return load_model(place)
    place = place.rstrip("/")
    is_file = place.endswith(".pt")
    folder = Path(place).parent if is_file else Path(place)
    study = folder.parent.parent
    if folder.name.isdigit() and (study / STUDY_FILE).is_file():
        number = int(folder.name)
        state = load_file(place) if is_file else trial_state(study, number)
        return trial_model(study, Ledger.open(study), number, state)
    found = _last_state(place, is_file)
    if found is None:
        raise ModelError(
            f"{place}: there is no checkpoint in it; name a folder like STUDY/promote/NAME or "
            f"STUDY/confirm/checkpoints/00000"
        )
    if "classes" not in found["identity"]:
        raise ModelError(
            f"{place}: is no trial of a study here; name it STUDY/checkpoints/NUMBER, wherever "
            f"the study's checkpoints lie"
        )
    return promoted_model(found)


def _last_state(place: str, is_file: bool) -> dict[str, Any] | None:
    try:
        return load_file(place) if is_file else load(place) or load(f"{place}/{IN_THE_FOLDER}")
    except UserError:
        raise
    except Exception as error:  # each file system has its own
        raise ModelError(f"{place}: cannot be read: {error}") from None
