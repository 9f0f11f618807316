"""Looking at a study: afi-search front | report | explain | analyse STUDY; the paper's table."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Annotated

import typer

from afi_search.cli.common import Data, Imports, Json, StudyFolder, console
from afi_search.errors import UserError
from afi_search.files import write_whole


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look through no objects for circles: thousands of trials stay until the end anyhow."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def front(study: StudyFolder, json: Json = False, imports: Imports = False) -> None:
    """Show a study's front, and write it (csv, json, html, png) and all its trials (csv)."""
    with _uncollected():
        from afi_search.report.export import front_json, write_report
        from afi_search.report.table import front_table
        from afi_search.report.view import StudyView
        from afi_search.study.study import Study

        view = StudyView.of(Study.open(study, imports=imports))
        if json:  # shown first: it may be that nothing can be written
            print(front_json(view))
        else:
            console.print(front_table(view, console.width))
        paths = write_report(view, study)
        if not json:
            console.say(*(f"Left out: {why}" for why in view.left_out))
            console.written(paths)


def report(study: StudyFolder, imports: Imports = False) -> None:
    """Write a study's report: one page with front, curves, choices, costs and environment."""
    with _uncollected():
        from afi_search.report.page import write_page
        from afi_search.report.view import StudyView
        from afi_search.study.study import Study

        view = StudyView.of(Study.open(study, imports=imports))
        console.say(
            *(f"Left out: {why}" for why in view.left_out), f"Written: {write_page(view, study)}"
        )


def explain(
    study: StudyFolder, trial: Annotated[int, typer.Argument(help="The trial's number.")]
) -> None:
    """Say why a trial was proposed, kept or stopped, from the ledger alone."""
    from afi_search.search.explain import explain as explain_trial
    from afi_search.study import Ledger

    console.say(*explain_trial(Ledger.find_in(study, trial)))


def analyse(
    study: StudyFolder,
    trials: Annotated[
        list[str] | None,
        typer.Argument(
            help="One or two trials, by number or by architecture; the most accurate with AFI "
            "otherwise. The study's plain backbone is set beside them."
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Images for Grad-CAM.", min=1, max=12)] = 8,
    data: Data = None,
    memory: Annotated[
        bool, typer.Option(help="Measure peak memory, the paper's Table 6 among it.")
    ] = True,
    json: Json = False,
    imports: Imports = False,
) -> None:
    """Write Grad-CAM, class selectivity, AFI's weights and peak memory of trained networks."""
    from afi_search.analysis.memory import rich_table
    from afi_search.analysis.networks import title
    from afi_search.analysis.study_analysis import analyse_study

    found = analyse_study(study, trials or [], images=images, data=data, memory=memory)
    if json:
        tables = (table.astype(object).where(table.notna(), None) for table in found.tables)
        console.table_of([{**row} for table in tables for _, row in table.iterrows()], json)
        found.write(study)
        return
    for table in found.tables:
        console.print(rich_table(table), "")
    console.say(*map(title, found.models))
    console.written(found.write(study))


def compare(
    studies: Annotated[
        list[Path], typer.Argument(help="Folders of studies on one data set, two or more.")
    ],
    to: Annotated[Path, typer.Option(help="The page to write.")] = Path("compare.html"),
    json: Json = False,
    imports: Imports = False,
) -> None:
    """Set fronts beside each other: a table, and a page with all of them, their intervals shown."""
    from afi_search.report.compare import compare_studies, comparison_page
    from afi_search.study.study import Study

    comparison = compare_studies([Study.open(study, imports=imports) for study in studies])
    console.table_of(comparison.rows if json else comparison.shown, json)
    write_whole(to, comparison_page(comparison))
    if not json:
        console.written([to])


def dashboard(
    study: StudyFolder,
    port: Annotated[
        int, typer.Option(help="Port to listen on, of this machine alone.", min=1, max=65535)
    ] = 8080,
) -> None:
    """Show a study's trials in optuna-dashboard, also while they run, until Ctrl-C."""
    from afi_search.study.folder import StudyFile
    from afi_search.study.storage import open_storage

    file = StudyFile.read(study)
    try:
        from bottle import run as serve
        from optuna_dashboard import wsgi
    except ImportError:
        raise UserError(
            "optuna-dashboard is not installed: pip install 'afi-search[dashboard]'"
        ) from None
    url = f"http://127.0.0.1:{port}/dashboard/"
    console.say(f"{file.ledger} is shown at {url} until Ctrl-C.")
    Timer(1, typer.launch, [url]).start()
    serve(wsgi(open_storage(study, file.storage)), host="127.0.0.1", port=port, quiet=True)


def table(json: Json = False) -> None:
    """Print the paper's Tables 4 and 5 beside the counts of the networks built here."""
    from afi_search.report.paper_table import compare, paper_tables, paper_tables_json

    rows = compare()
    if json:
        print(paper_tables_json(rows))
    else:
        console.print(paper_tables(rows))
