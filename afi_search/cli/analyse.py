"""Pictures and peak memory of trained networks: afi-search analyse STUDY [TRIAL...]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from afi_search.cli import exits_on_mistake

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
    from afi_search.analysis.study_analysis import analyse_study
    from afi_search.analysis.table6 import rich_table

    found = analyse_study(study, trials or [], images=images, data=data, memory=memory)
    for table in found.tables:
        console.print(rich_table(table), "")
    for network in found.models:
        console.print(network.title)
    console.print("Written:", *(f"  {path}" for path in found.paths), sep="\n", soft_wrap=True)
