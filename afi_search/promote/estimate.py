"""What a promotion will need: measured on one worker for a few seconds, then multiplied."""

from __future__ import annotations

from dataclasses import dataclass

from afi_search.engine.promotion_worker import Probe
from afi_search.formatting import duration
from afi_search.train.checkpoint import KEPT

FORWARD_SHARE = 1 / 3
"""Testing an image takes about a third of training on it: the backward pass costs two forwards."""
_BYTES = 4
_BINDS_BELOW = 0.9
"""The loader binds where it gives fewer images/s than this share of the model's."""


@dataclass(frozen=True)
class Needs:
    """What a whole promotion needs.

    Attributes:
        seconds: for the epochs that are left.
        memory: bytes a worker.
        disk: bytes of the checkpoints, at the most, and of the exported weights.
    """

    seconds: float
    memory: int
    disk: int


def needs(
    probe: Probe, *, workers: int, epochs: int, train: int, validation: int, averages: bool
) -> Needs:
    """Multiply a probe's measures.

    Communication between workers is not in it; over NVLink or InfiniBand it takes a few per cent.

    Args:
        probe: of one worker.
        workers: how many there will be.
        epochs: left to train.
        train, validation: images an epoch.
        averages: whether a running average of the weights is kept.
    """
    training = min(probe.model_speed, probe.loader_speed)
    testing = min(probe.model_speed / FORWARD_SHARE, probe.loader_speed)
    epoch = (train / training + validation / testing) / workers
    copies = 2 + averages  # weights, momentum, and the average
    checkpoints = KEPT + 1  # the new one is whole before the oldest goes
    disk = probe.weights * _BYTES * (checkpoints * copies + 1)
    return Needs(epochs * epoch, probe.memory, disk)


def describe(probe: Probe, needed: Needs, *, workers: int, epochs: int) -> str:
    """Say in words what is needed, and whether the model or its loader binds."""
    device = "GPU" if probe.on_gpu else "process"
    slower = probe.loader_speed < _BINDS_BELOW * probe.model_speed
    binds = "the loader binds: give it more CPU cores" if slower else "the model binds"
    trainings = f"{epochs} epoch{'s' if epochs > 1 else ''}"
    return (
        f"{trainings} on {workers} {'GPUs' if probe.on_gpu else 'CPU processes'}: about "
        f"{duration(needed.seconds)}, {_giga(needed.memory)} of memory a {device}, "
        f"{_giga(needed.disk)} of disk. Measured for one {device}: the model "
        f"{probe.model_speed:,.0f} images/s, its loader "
        f"{probe.loader_speed:,.0f} images/s; {binds}."
    )


def _giga(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
