"""Exporting what a checkpoint holds: afi-search export CHECKPOINT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from afi_search.cli import exits_on_mistake

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
    from afi_search.model.from_checkpoint import read_checkpoint
    from afi_search.model.onnx import write_exported, write_onnx

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
