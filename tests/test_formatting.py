from __future__ import annotations

import math

import pytest

from afi_search.formatting import against, count, duration, mega, percent
from afi_search.space.objective import write_objective


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (percent(0.71234), "71.2"),
        (percent(math.nan), "-"),
        (mega(69_132_160), "69.13"),
        (mega(4_089_000_000), "4,089"),
        (count(472_756), "472.8 K"),
        (count(1_736_564), "1.74 M"),
        (against(80, 100), "\N{MINUS SIGN}20.0 %"),
        (against(120.04, 100), "+20.0 %"),
        (against(100.04, 100), "\N{PLUS-MINUS SIGN}0 %"),
        (duration(7.24), "7.2 s"),
        (duration(45.3), "45 s"),
        (duration(61), "1 min 1 s"),
        (duration(59.7), "1 min 0 s"),
        (write_objective("macs", 69_132_160), "69,132,160"),
        (write_objective("memory", 1_234_567_890), "1,234.6 MB"),
        (write_objective("latency", 1234.5), "1,234.500 ms"),
        (duration(3_600 * 27 + 65), "27 h 1 min"),
    ],
)
def test_figures_are_written_with_unit_and_sign(written: str, expected: str) -> None:
    assert written == expected
