"""The command line: afi-search run | inspect | front | report | confirm | promote | ..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from afi_search.cli.analyse import analyse
from afi_search.cli.export import export
from afi_search.cli.inspect_space import inspect_space
from afi_search.cli.predict import predict
from afi_search.cli.promote import promote
from afi_search.cli.run import run
from afi_search.cli.study import app as study_app
from afi_search.errors import exits_on_mistake
from afi_search.promote.confirm import confirm
from afi_search.report.export import write_report
from afi_search.report.page import write_page
from afi_search.report.paper_table import compare, paper_tables, paper_tables_json
from afi_search.report.table import front_table
from afi_search.search.explain import explain as explain_trial
from afi_search.study import Ledger
from afi_search.study.info import read_study

app = typer.Typer(
    name="afi-search",
    help="Find where Attentive Feature Integration (AFI) pays in a CNN.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()


@exits_on_mistake
def front(
    study: Annotated[Path, typer.Argument(help="A study's folder, like studies/resnet32-digits.")],
) -> None:
    """Write a study's front (csv, json, html, png) and all its trials (csv)."""
    records, info = read_study(study)
    paths = write_report(records, info, study)
    console.print(front_table(records, info))
    console.print("Written:", *(f"  {path}" for path in paths), sep="\n", soft_wrap=True)


@exits_on_mistake
def report(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
) -> None:
    """Write a study's report: one page with front, curves, choices, costs and environment."""
    records, info = read_study(study)
    console.print(f"Written: {write_page(records, info, study)}", soft_wrap=True)


@exits_on_mistake
def table(
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Print the paper's Tables 4 and 5 beside the counts of the networks built here."""
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
    for line in explain_trial(Ledger.open(study).find(trial)):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


app.command()(run)
app.command()(front)
app.command()(report)
app.command()(table)
app.command()(explain)
app.command("inspect")(inspect_space)
app.command()(confirm)
app.command()(promote)
app.command()(export)
app.command()(predict)
app.command()(analyse)
app.add_typer(study_app, name="study")


def main() -> None:
    """Run the command line."""
    app()
