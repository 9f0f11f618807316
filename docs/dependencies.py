"""What is installed with afi_search, part by part, its size and its licences, as a Markdown table.

python docs/dependencies.py > docs/dependencies.md
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "afi-search"
HEAD = """\
# Dependencies, sizes and licences

Read from the metadata of what is installed, by `python docs/dependencies.py > docs/dependencies.md`
(Python {python}, {system}, torch {torch}). Megabytes are those of the files on disk. A package is
counted with the first part that needs it.

afi_search itself is under Apache-2.0. The licences below are those that the packages state of
themselves; nothing of theirs is copied into this repository.
"""


def closure(names: Iterable[tuple[str, str]]) -> dict[str, Distribution]:
    """Return the installed distributions that (name, extra) pairs need, themselves included."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = list(names)
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # for another platform, or an extra that is not installed
            continue
        for text in found[name].requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(wanted.name)
                waiting += [(needed, each) for each in ("", *wanted.extras)]
    return found


def megabytes(package: Distribution) -> float:
    """Return the size of a distribution's files on disk."""
    paths = (package.locate_file(file) for file in package.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def licence(package: Distribution) -> str:
    """Return the licence in a few words: an SPDX expression, or what the classifiers say."""
    stated = package.metadata
    expression = stated.get("License-Expression")
    classified = [
        value.rpartition(" :: ")[2]
        for value in stated.get_all("Classifier") or ()
        if value.startswith("License :: ") and not value.endswith("OSI Approved")
    ]
    first = (stated.get("License") or "").strip().splitlines()
    return expression or ", ".join(classified) or (first[0][:60] if first else "not stated")


def main() -> None:
    """Print the page."""
    extras = list(distribution(PACKAGE).metadata.get_all("Provides-Extra") or ())
    parts = {"": "needed by the main job", **{e: f"extra `{e}`" for e in extras if e != "dev"}}
    print(
        HEAD.format(
            python=platform.python_version(),
            system=f"{platform.system()} {platform.machine()}",
            torch=distribution("torch").version,
        )
    )
    told = {PACKAGE}
    for extra, title in {**parts, "dev": "extra `dev`"}.items():
        packages = closure([(PACKAGE, extra)])
        new = {name: each for name, each in packages.items() if name not in told}
        if not new:
            print(f"## {title}\n\nNot installed where this page was written.\n")
            continue
        told |= new.keys()
        sizes = {name: megabytes(each) for name, each in new.items()}
        print(f"## {title}: {len(new)} packages, {sum(sizes.values()):,.0f} MB\n")
        print("| package | version | MB | licence |\n|---|---|---:|---|")
        for name in sorted(new, key=lambda name: -sizes[name]):
            print(f"| {name} | {new[name].version} | {sizes[name]:.1f} | {licence(new[name])} |")
        print()


if __name__ == "__main__":
    sys.exit(main())
