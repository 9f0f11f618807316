"""Timing contenders in turn, and what every table says of the machine it was made on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles

import pandas as pd
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from afi_search.search.device import describe_device

RESULTS = Path(__file__).parent / "results"

console = Console()


def best_device() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def clock(device: torch.device) -> Callable[[], float]:
    """Return what to time work on the device with.

    On one CPU thread it is CPU time, which other work on the machine disturbs less.
    """
    return time.process_time if _one_thread(device) else time.perf_counter


def in_turn(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    warm_up: int = 2,
) -> dict[str, list[float]]:
    """Return each contender's seconds in every round, one call after the other.

    The device is waited for.
    """
    now = clock(device)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        for name, run in contenders.items():
            started = now()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn >= warm_up:
                seconds[name].append(now() - started)
    return seconds


def against(seconds: list[float], base: list[float]) -> dict[str, float]:
    """Return median and minimum, and the median and quartiles of the rounds' ratios to `base`."""
    ratios = [own / other for own, other in zip(seconds, base, strict=True)]
    low, middle, high = quantiles(ratios, n=4)
    return {
        "median_s": median(seconds),
        "min_s": min(seconds),
        "ratio": middle,
        "ratio_quarter": low,
        "ratio_three_quarters": high,
        "ratio_of_minima": min(seconds) / min(base),
    }


def facts(device: torch.device) -> dict[str, object]:
    """Return what a figure depends on: device, threads, clock, torch, the machine's load."""
    return {
        "device": describe_device(),
        "threads": torch.get_num_threads(),
        "clock": "cpu" if _one_thread(device) else "wall",
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }


def write(name: str, rows: list[dict[str, object]]) -> pd.DataFrame:
    """Write the rows to results/NAME.csv and return them as a table."""
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    table.round(5).to_csv(RESULTS / f"{name}.csv", index=False, lineterminator="\n")
    return table


def publish(name: str, rows: list[dict[str, object]], columns: list[str]) -> None:
    """Write the rows to results/NAME.csv and print some of their columns as a table."""
    table = write(name, rows)
    screen = Table(title=name, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        number = pd.api.types.is_numeric_dtype(table[column])
        screen.add_column(column.replace("_", " "), justify="right" if number else "left")
    for row in table[columns].to_dict("records"):
        screen.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(screen)
    console.print(f"{rows[0]['device']}, torch {rows[0]['torch']}, load {rows[0]['load']}")
    console.print(f"Written: {RESULTS / f'{name}.csv'}", soft_wrap=True)


def _one_thread(device: torch.device) -> bool:
    return device.type == "cpu" and torch.get_num_threads() == 1
