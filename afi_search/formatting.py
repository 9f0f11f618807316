"""Numbers as text, with their units: the same in tables, pictures, pages and messages."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MINUS = "\N{MINUS SIGN}"


def printable(text: str | Path) -> str:
    r"""Return a text without what a terminal would obey; bytes of paths that are no UTF-8 as \xNN.

    >>> printable("caf\udce9 \x1b[31m")
    'caf\\xe9 \\x1b[31m'
    """
    return _UNPRINTABLE.sub(_escaped, str(text))


def in_a_line(path: str | Path) -> str:
    r"""Return a path as `printable` does, in one line whatever it is.

    >>> in_a_line("two\nlines")
    'two\\nlines'
    """
    return printable(path).replace("\n", "\\n")


def _escaped(character: re.Match[str]) -> str:
    code = ord(character[0])
    code -= 0xDC00 if 0xDC80 <= code <= 0xDCFF else 0  # a byte, as Python keeps it in a path
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def shortened(text: str, columns: int = 1000, lines: int = 50) -> str:
    """Return a text without the middle of its longest lines, and without its last ones.

    >>> shortened("--name " + 2000 * "x" + ": is no name", columns=40)
    '--name xxxxxxxxx [...] xxxxx: is no name'
    """
    kept = text.split("\n")
    if len(kept) > lines:
        kept[lines:] = [f"... and {len(kept) - lines:,} lines more"]
    half = columns // 2 - 4
    return "\n".join(
        f"{line[:half]} [...] {line[-half - 1 :]}" if len(line) > columns else line for line in kept
    )


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


def megabytes(number_of_bytes: float) -> str:
    """Write a number of bytes in millions, with one digit after the point."""
    return f"{number_of_bytes / 1e6:,.1f}"


def plural(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def with_names(figures: Iterable[tuple[str, str]]) -> str:
    """Return figures in a line, each after its name; empty ones are left out.

    >>> with_names([("trials", "12"), ("best", ""), ("epochs", "4")])
    'trials: 12; epochs: 4'
    """
    return "; ".join(f"{name}: {figure}" for name, figure in figures if figure)


def signed(value: float, digits: int) -> str:
    """Write a change with its sign and so many digits after the point."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def against(value: float, base: float) -> str:
    """Write a value as its difference from a base in per cent, with its sign."""
    change = round(100 * (value / base - 1), 1)
    return f"{signed(change, 1)} %" if change else "\N{PLUS-MINUS SIGN}0 %"


def duration(seconds: float) -> str:
    """Write a length of time in the two largest units that it needs.

    >>> duration(7.24), duration(61), duration(7_500)
    ('7.2 s', '1 min 1 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
