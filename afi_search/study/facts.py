"""What a study, or a later run of it, ran with: command, time, commit, versions, device."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

STARTED = "started"
_PACKAGES = ("afi-search", "torch", "torchvision", "timm", "ray", "optuna", "moocore")
_SOURCES = Path(__file__).parents[2]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


__version__ = _version("afi-search")
"""Of what is installed: the git tag, and the commits since, of the sources it was built from."""


def gather_facts(command: str, device: str) -> dict[str, str]:
    """Return the facts of this run that study.yaml keeps: names to texts."""
    return {
        "command": command,
        STARTED: datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "device": device,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in _PACKAGES},
    }


def _commit() -> str:
    """Return the commit of the sources, with a mark where they differ from it."""
    if not (_SOURCES / ".git").exists():  # installed, perhaps within somebody's own repository
        return "unknown"
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.check_output(
            command, cwd=_SOURCES, text=True, stderr=subprocess.DEVNULL
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
