"""Classifying image files: afi-search predict MODEL IMAGE..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afi_search.cli import exits_on_mistake


@exits_on_mistake
def predict(
    model: Annotated[Path, typer.Argument(help="A folder that export or promote wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option(help="How many guesses for each.", min=1)] = 5,
) -> None:
    """Print the likeliest classes of image files with their probabilities."""
    from afi_search.data.image_reader import printable
    from afi_search.model import load

    opened = load(model)
    for image in images:
        guesses = (f"{g.label} {100 * g.probability:.1f} %" for g in opened.predict(image, top))
        print(f"{printable(image)}: {', '.join(guesses)}")
