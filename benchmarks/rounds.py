"""Timing contenders in turn, and what every table says of the machine it was made on."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import pandas as pd
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from afi_search.device import describe_device

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
    runs = {name: partial(_seconds, run, device) for name, run in contenders.items()}
    return _in_turn(runs, rounds, warm_up)


def in_turn_apart(
    makers: Mapping[str, Callable[[], Callable[[], object]]],
    rounds: int,
    device: torch.device,
    warm_up: int = 2,
) -> dict[str, list[float]]:
    """Return the same, where every contender has a process of its own, in which it is made.

    So none of them gains or loses by what another does to its process.

    Args:
        makers: make the contenders; they travel to the processes.
    """
    spawn = multiprocessing.get_context("spawn")
    threads = torch.get_num_threads()
    with ExitStack() as processes:
        runs: dict[str, Callable[[], float]] = {}
        for name, maker in makers.items():
            process = ProcessPoolExecutor(1, spawn, _Apart.begin, (maker, threads, device))
            processes.enter_context(process)
            runs[name] = partial(_result, process)
        return _in_turn(runs, rounds, warm_up)


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


class _Apart:
    """The contender of a process that has one."""

    run: Callable[[], object]
    device: torch.device

    @classmethod
    def begin(
        cls, maker: Callable[[], Callable[[], object]], threads: int, device: torch.device
    ) -> None:
        """Make it."""
        torch.set_num_threads(threads)
        cls.run, cls.device = staticmethod(maker()), device

    @classmethod
    def seconds(cls) -> float:
        """Run it once."""
        return _seconds(cls.run, cls.device)


def _result(process: ProcessPoolExecutor) -> float:
    return process.submit(_Apart.seconds).result()


def _in_turn(
    runs: Mapping[str, Callable[[], float]], rounds: int, warm_up: int
) -> dict[str, list[float]]:
    turns = [{name: run() for name, run in runs.items()} for _ in range(warm_up + rounds)]
    return {name: [turn[name] for turn in turns[warm_up:]] for name in runs}


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    now = clock(device)
    started = now()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return now() - started


def _one_thread(device: torch.device) -> bool:
    return device.type == "cpu" and torch.get_num_threads() == 1
