"""The command line: afi-search run | inspect | front | report | confirm | promote | ...

Every command imports what it needs when it runs, so that help and completion come at once.
"""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from afi_search.cli.common import Command, Computes
from afi_search.cli.confirm import confirm
from afi_search.cli.model import export, extract, predict
from afi_search.cli.promote import promote
from afi_search.cli.run import run
from afi_search.cli.space import inspect_space, spaces
from afi_search.cli.study import app as study_app
from afi_search.cli.views import analyse, compare, dashboard, explain, front, report, table

app = typer.Typer(
    name="afi-search",
    help="Find where Attentive Feature Integration (AFI) pays in a CNN.",
    epilog="Example: afi-search run resnet",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from afi_search import __version__

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


_COMPUTE = {run, inspect_space, analyse, confirm, promote, export, extract, predict}
for _command, _example in (
    (run, "run resnet --preset smoke"),
    (spaces, "spaces"),
    (inspect_space, "inspect resnet"),
    (front, "front studies/resnet32-cifar100-smoke"),
    (report, "report studies/resnet32-cifar100-smoke"),
    (compare, "compare studies/resnet32-cifar100-smoke studies/resnet32-cifar100-other"),
    (dashboard, "dashboard studies/resnet32-cifar100-smoke"),
    (explain, "explain studies/resnet32-cifar100-smoke 7"),
    (analyse, "analyse studies/resnet32-cifar100-smoke 7 12"),
    (confirm, "confirm studies/resnet32-cifar100-short --seeds 3"),
    (promote, "promote studies/resnet32-cifar100-short --data /data/imagenet"),
    (export, "export studies/resnet32-cifar100-short/confirm/checkpoints/00000 --fold"),
    (extract, 'extract studies/resnet20-digits "resnet20(base-r4, off, B-r4)"'),
    (predict, "predict models/resnet32_base-r4 cat.jpg dog.jpg --top 3"),
    (table, "table --json"),
):
    _kind = Computes if _command in _COMPUTE else Command
    app.command(_example.split()[0], cls=_kind, epilog=f"Example: afi-search {_example}")(_command)
app.add_typer(study_app, name="study")


def main() -> None:
    """Run the command line."""
    app()


def main_of_run() -> None:
    """Run `afi-search run` as a program of its own."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    group.commands["run"](prog_name="python -m afi_search.run", **group.context_settings)
