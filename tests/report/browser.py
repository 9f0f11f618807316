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
    "--allow-file-access-from-files",
)

ON_A_PHONE = """<!DOCTYPE html>
<iframe src="{page}" width="{width}" height="9000" style="border: 0"></iframe>
<script>
onload = () => setTimeout(() => {{
  const {{document: page, innerWidth: width}} = frames[0];
  for (const part of page.querySelectorAll('p, th, svg text'))
    if (part.getBoundingClientRect().right > width + 1) console.log(part.textContent);
}}, 2000);
</script>"""
"""A browser's window is wider than a phone; a frame in it need not be."""


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


def cut_off(page: Path, scratch: Path, width: int) -> list[str]:
    """Return a page's texts, but for cells, that end beyond the edge of so many pixels."""
    phone = scratch.with_suffix(".html")
    phone.write_text(ON_A_PHONE.format(page=page.as_uri(), width=width), encoding="utf-8")
    return [said.split('"')[1] for said in open_page(phone, scratch).console]
