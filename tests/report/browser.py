"""A real browser without a window, to see what a page really does."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--enable-logging=stderr",
    "--virtual-time-budget=10000",
)


@dataclass(frozen=True)
class OpenedPage:
    """What a page came to: its document after all scripts ran, and what it said to the console."""

    dom: str
    console: list[str]


def open_page(page: Path, scratch: Path, width: int = 1280) -> OpenedPage:
    """Open a page in headless Chromium, pixels wide; skip the test where there is none."""
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip(f"needs a browser, and none of {', '.join(NAMES)} is on the path")
    done = subprocess.run(
        [
            *(browser, *FLAGS, f"--user-data-dir={scratch}", f"--window-size={width},900"),
            *("--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return OpenedPage(done.stdout, re.findall(r":CONSOLE\S*\] (.*)", done.stderr))
