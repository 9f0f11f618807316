"""The command line: afi-search run | inspect | front | report | confirm | promote | ...

Every command imports what it needs when it runs, so that help and completion come at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.core import TyperGroup

from afi_search import __version__
from afi_search.cli import exits_on_mistake
from afi_search.cli.analyse import analyse
from afi_search.cli.confirm import confirm
from afi_search.cli.export import export
from afi_search.cli.inspect_space import inspect_space
from afi_search.cli.predict import predict
from afi_search.cli.promote import promote
from afi_search.cli.run import run
from afi_search.cli.spaces import spaces
from afi_search.cli.study import app as study_app

app = typer.Typer(
    name="afi-search",
    help="Find where Attentive Feature Integration (AFI) pays in a CNN.",
    epilog="Example: afi-search run resnet",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
console = Console()


@exits_on_mistake
def front(
    study: Annotated[Path, typer.Argument(help="A study's folder, like studies/resnet32-digits.")],
) -> None:
    """Write a study's front (csv, json, html, png) and all its trials (csv)."""
    from afi_search.report.export import write_report
    from afi_search.report.table import FrontTable
    from afi_search.report.view import StudyView
    from afi_search.study.study import Study

    view = StudyView.of(Study.open(study))
    paths = write_report(view, study)
    console.print(FrontTable(view))
    console.print("Written:", *(f"  {path}" for path in paths), sep="\n", soft_wrap=True)


@exits_on_mistake
def report(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
) -> None:
    """Write a study's report: one page with front, curves, choices, costs and environment."""
    from afi_search.report.page import write_page
    from afi_search.report.view import StudyView
    from afi_search.study.study import Study

    view = StudyView.of(Study.open(study))
    console.print(f"Written: {write_page(view, study)}", soft_wrap=True)


@exits_on_mistake
def table(
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Print the paper's Tables 4 and 5 beside the counts of the networks built here."""
    from afi_search.report.paper_table import compare, paper_tables, paper_tables_json

    rows = compare()
    if json:
        print(paper_tables_json(rows))
    else:
        console.print(paper_tables(rows))


@exits_on_mistake
def explain(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    trial: Annotated[int, typer.Argument(help="The trial's number.")],
) -> None:
    """Say why a trial was proposed, kept or stopped, from the ledger alone."""
    from afi_search.search.explain import explain as explain_trial
    from afi_search.study import Ledger

    for line in explain_trial(Ledger.open(study).find(trial)):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"afi-search {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


for _command, _example in (
    (run, "run resnet --preset smoke"),
    (spaces, "spaces"),
    (inspect_space, "inspect resnet"),
    (front, "front studies/resnet32-cifar100-smoke"),
    (report, "report studies/resnet32-cifar100-smoke"),
    (explain, "explain studies/resnet32-cifar100-smoke 7"),
    (analyse, "analyse studies/resnet32-cifar100-smoke 7 12"),
    (confirm, "confirm studies/resnet32-cifar100-short --seeds 3"),
    (promote, "promote studies/resnet32-cifar100-short --data /data/imagenet"),
    (export, "export studies/resnet32-cifar100-short/confirm/checkpoints/00000 --fold"),
    (predict, "predict models/resnet32_base-r4 cat.jpg dog.jpg --top 3"),
    (table, "table --json"),
):
    app.command(_example.split()[0], epilog=f"Example: afi-search {_example}")(_command)
app.add_typer(study_app, name="study")


def main() -> None:
    """Run the command line."""
    app()


def main_of_run() -> None:
    """Run `afi-search run` as a program of its own."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    group.commands["run"](prog_name="python -m afi_search.run", **group.context_settings)
