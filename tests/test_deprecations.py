"""What we use of others must not be deprecated: such a use is an error, in every process."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

DEPRECATED = "import warnings; warnings.warn('old', DeprecationWarning, stacklevel=1)"
OURS = ["afi_search.cli.run", "afi_search.engine.tune", "afi_search.report.page"]


@pytest.mark.parametrize("module", [*OURS, "afi_search.search.proposer", "afi_search.promote"])
def test_a_deprecated_use_of_ours_is_an_error(module: str) -> None:
    with pytest.raises(DeprecationWarning, match="old"):
        exec(DEPRECATED, {"__name__": module})


def test_what_others_deprecate_among_themselves_is_none() -> None:
    with warnings.catch_warnings(record=True):
        exec(DEPRECATED, {"__name__": "ray.tune"})


@pytest.mark.parametrize(("module", "code"), [("afi_search.engine.tune", 1), ("ray.tune", 0)])
def test_processes_that_tests_start_are_as_strict(module: str, code: int) -> None:
    program = f"exec({DEPRECATED!r}, {{'__name__': {module!r}}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
