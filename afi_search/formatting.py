"""How the figures of a trial are written, the same in tables, pictures and pages."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"


def percent(accuracy: float) -> str:
    """Write an accuracy of 0..1 in per cent with one digit, without the sign."""
    return "-" if math.isnan(accuracy) else f"{100 * accuracy:.1f}"


def mega(macs: float) -> str:
    """Write a count in millions; two digits after the point below a thousand of them."""
    value = macs / 1e6
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def count(number: float) -> str:
    """Write a number of parameters in thousands (K) or millions (M)."""
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.1f} K"


def signed(value: float, digits: int) -> str:
    """Write a change with its sign and so many digits after the point."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def against(value: float, base: float) -> str:
    """Write a value as its difference from a base in per cent, with its sign."""
    change = round(100 * (value / base - 1), 1)
    return f"{signed(change, 1)} %" if change else "\N{PLUS-MINUS SIGN}0 %"


def duration(seconds: float) -> str:
    """Write a length of time in the two largest units that it needs."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def size(number_of_bytes: float) -> str:
    """Write a number of bytes in the largest unit that leaves at least one of it."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if number_of_bytes >= 10**power:
            return f"{number_of_bytes / 10**power:.1f} {unit}"
    return f"{number_of_bytes:.0f} bytes"
