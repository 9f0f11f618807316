"""Ledger records as a search would leave them, without a search."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
from pandas import DataFrame

from afi_search.cost import Cost, measure
from afi_search.space.architecture import (
    SCORERS,
    WIDTHS,
    Architecture,
    StageChoice,
)
from afi_search.space.attention import ATTENTIONS
from afi_search.space.backbone import get_backbone
from afi_search.study.info import StudyInfo

COLUMNS = (
    "number",
    "state",
    "architecture",
    "id",
    "backbone",
    "seed",
    "epochs",
    "full",
    "accuracy",
    "macs",
    "params",
    "paper_gflops",
    "memory",
    "latency",
    "seconds",
    "origin",
    "init",
    "curve",
    "reason",
    "started",
    "finished",
)
START = datetime(2026, 11, 20, 8, 0)


def study_info(**changes: object) -> StudyInfo:
    facts: dict[str, Any] = {
        "name": "resnet32-cifar100",
        "backbones": ("resnet32",),
        "dataset": "cifar100",
        "num_classes": 100,
        "image_size": 32,
        "epochs": 9,
        "preset": "short",
        "device": "CPU, 2 threads",
        "seed": 0,
        "train_images": 45000,
        "validation_images": 5000,
        "note": "Short trainings: good for ranking architectures, not for their final accuracy.",
        "environment": {"python": "3.12.3", "torch": "2.11.0", "commit": "0123abc"},
    }
    return StudyInfo(**(facts | changes))


def empty() -> DataFrame:
    return DataFrame({name: [] for name in COLUMNS})


def record(number: int, accuracy: float, macs: float, **changes: object) -> dict[str, object]:
    """One trial of full fidelity, with a name of its own and the changes applied."""
    values: dict[str, object] = {
        "number": number,
        "state": "complete",
        "architecture": f"network{number}",
        "id": f"{number:08x}",
        "backbone": "resnet32",
        "seed": number,
        "epochs": 9,
        "full": True,
        "accuracy": accuracy,
        "macs": macs,
        "params": 400_000,
        "paper_gflops": 2.0,
        "memory": math.nan,
        "latency": math.nan,
        "seconds": 90.0,
        "origin": "tpe",
        "init": "random",
        "curve": [accuracy] * 9,
        "reason": "",
        "started": pd.Timestamp(START),
        "finished": pd.Timestamp(START + timedelta(seconds=90)),
    }
    return values | changes


def searched(
    trials: int,
    *,
    info: StudyInfo,
    best: float = 0.7,
    pruning: bool = True,
    seed: int = 0,
    full_share: float = 0.3,
) -> DataFrame:
    """The records of a search whose accuracies grow with cost, with noise, towards `best`."""
    draw = random.Random(seed)
    plain = Architecture.plain(info.backbones[0])
    rows: list[dict[str, object]] = []
    clock = START
    seen: set[Architecture] = set()
    while len(rows) < trials:
        number = len(rows)
        architecture = plain if number == 0 else _random_architecture(info.backbones[0], draw)
        if architecture in seen:
            continue
        seen.add(architecture)
        cost = measure(architecture, num_classes=info.num_classes, image_size=info.image_size)
        curve = _curve(best * _quality(architecture, cost, plain, info, draw), info.epochs, draw)
        state = "complete"
        if pruning and number > 3 and draw.random() > full_share:
            state = "pruned"
            curve = curve[: draw.choice([max(1, info.epochs // 9), max(1, info.epochs // 3)])]
        if pruning and number % 37 == 36:
            state, curve = "failed", curve[:2]
        seconds = 10.0 * len(curve) * cost.macs / 7e7
        finished = clock + timedelta(seconds=seconds)
        rows.append(
            record(
                number,
                curve[-1],
                cost.macs,
                state=state,
                architecture=str(architecture),
                id=architecture.id,
                backbone=info.backbones[0],
                epochs=len(curve),
                full=state == "complete",
                params=cost.params,
                paper_gflops=cost.paper_gflops,
                seconds=seconds,
                curve=curve,
                reason="loss became nan at epoch 3" if state == "failed" else "",
                started=pd.Timestamp(clock),
                finished=pd.Timestamp(finished),
            )
        )
        clock = finished + timedelta(seconds=1)
    return DataFrame(rows, columns=list(COLUMNS))


def _random_architecture(backbone: str, draw: random.Random) -> Architecture:
    def choice() -> StageChoice | None:
        if draw.random() < 0.3:
            return None
        return StageChoice(
            draw.choice(WIDTHS),
            draw.choice([2, 4, 8, 16]),
            draw.choice([None, *ATTENTIONS.names]),
            draw.choice(SCORERS),
        )

    return Architecture(backbone, tuple(choice() for _ in get_backbone(backbone).stages))


def _quality(
    architecture: Architecture,
    cost: Cost,
    plain: Architecture,
    info: StudyInfo,
    draw: random.Random,
) -> float:
    base = measure(plain, num_classes=info.num_classes, image_size=info.image_size)
    late = 0.02 if architecture.stages[-1] is not None else 0.0
    return 0.95 + 0.04 * math.log(cost.macs / base.macs) + late + draw.gauss(0, 0.008)


def _curve(final: float, epochs: int, draw: random.Random) -> list[float]:
    return [
        round(final * (1 - 0.8 * math.exp(-4 * (epoch + 1) / epochs)) + draw.gauss(0, 0.004), 4)
        for epoch in range(epochs)
    ]
