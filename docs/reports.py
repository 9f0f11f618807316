"""Puts the report of every recorded study beside the pages, so that they can link to it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mkdocs.structure.files import File, Files

from afi_search.report.page import write_page
from afi_search.report.view import StudyView
from afi_search.study.study import Study


def on_files(files: Files, config: Any) -> Files:
    """Add reports/NAME.html of each study in studies/reference that keeps its ledger."""
    for ledger in sorted(Path("studies/reference").glob("*/ledger.log")):
        view = StudyView.of(Study.open(ledger.parent))
        with TemporaryDirectory() as scratch:
            page = write_page(view, Path(scratch)).read_text(encoding="utf-8")
        place = f"reports/{ledger.parent.name}.html"
        files.append(File.generated(config, place, content=page))
    return files
