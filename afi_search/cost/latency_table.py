"""The latency of every architecture of a space, from a few networks that were run on the target.

Stages run one after another, so a network takes what its stages take and the rest of it. Each
choice of each stage is run once, before the study's first trial, when the machine has nothing
else to do, and the table is kept in the study's folder: a study has one latency an architecture,
however often it is gone on with. `benchmarks/latency.py` shows how far the sums are from whole
networks' times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

import torch

from afi_search.cost import StageTimes, time_stages
from afi_search.data import DatasetSpec
from afi_search.device import describe_device
from afi_search.errors import UserError
from afi_search.files import write_whole
from afi_search.space import Architecture, Space, StageChoice
from afi_search.space.architecture import choice_text

FILE = "latency.json"

TimeStages = Callable[[Architecture], StageTimes]
Choices = Sequence[Collection[StageChoice | None]]
Progress = Callable[[str], object]


class LatencyError(UserError):
    """Latency cannot be measured, or its table cannot be read."""


@dataclass(frozen=True)
class Latencies:
    """Nanoseconds of a forward pass.

    Attributes:
        device: they were measured on.
        networks: architecture's text -> of the whole network.
        stages: for each stage, a choice's text -> of the stage. Empty for a list of architectures.
    """

    device: str
    networks: dict[str, int]
    stages: tuple[dict[str, int], ...] = ()

    def of(self, architecture: Architecture) -> int:
        """Return what an architecture takes.

        Raises:
            KeyError: a part of it was not measured.
        """
        if architecture.text in self.networks:
            return self.networks[architecture.text]
        plain = self.networks[Architecture.plain(architecture.backbone).text]
        return plain + sum(
            self.added(stage, choice) for stage, choice in enumerate(architecture.stages)
        )

    def added(self, stage: int, choice: StageChoice | None) -> int:
        """Return what a choice adds to the plain backbone.

        Raises:
            KeyError: it was not measured.
        """
        if stage >= len(self.stages):
            raise KeyError(stage)
        return self.stages[stage][choice_text(choice)] - self.stages[stage][choice_text(None)]

    def write(self, folder: Path) -> None:
        """Write the table into a study's folder."""
        write_whole(folder / FILE, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Latencies | None:
        """Read the table of a study's folder; None where there is none.

        Raises:
            LatencyError: the file is not such a table.
        """
        path = folder / FILE
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            return cls(raw["device"], dict(raw["networks"]), tuple(map(dict, raw["stages"])))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise LatencyError(
                f"{path}: is not a table of latencies ({error}); remove it, and they are "
                f"measured again"
            ) from None


def measure_stages(backbone: str, choices: Choices, device: str, time: TimeStages) -> Latencies:
    """Run every choice of every stage, as many as possible in one network.

    Args:
        backbone: the backbone's name.
        choices: of each stage.
        device: in words.
        time: runs a network.
    """
    plain = Architecture.plain(backbone)
    whole, of_plain = time(plain)
    stages = [{choice_text(None): nanoseconds} for nanoseconds in of_plain]
    for placed in zip_longest(*(dict.fromkeys(offered) for offered in choices)):
        times = time(Architecture(backbone, placed)).stages
        for table, choice, nanoseconds in zip(stages, placed, times, strict=True):
            table.setdefault(choice_text(choice), nanoseconds)
    return Latencies(device, {plain.text: whole}, tuple(stages))


def measure_each(architectures: Iterable[Architecture], device: str, time: TimeStages) -> Latencies:
    """Run a list of architectures one by one."""
    return Latencies(device, {a.text: time(a).whole for a in architectures})


def measure_space(space: Space, source: DatasetSpec, progress: Progress) -> Latencies:
    """Run what the latency of every architecture that may be tried is made of.

    Raises:
        LatencyError: this machine has not the target's device.
    """
    file = space.file
    device = target_device(file.target.device)

    def time(architecture: Architecture) -> StageTimes:
        progress(f"Measuring latency on the {device.type}: {architecture}")
        return time_stages(
            architecture,
            num_classes=source.num_classes,
            image_size=source.image_size,
            device=device,
            batch_size=file.target.batch,
        )

    described = describe_target(device, file.target.batch)
    if file.backbone is None:
        return measure_each((*file.architectures, *space.first_to_try), described, time)
    choices = [
        (*offered, *(architecture.stages[stage] for architecture in space.first_to_try))
        for stage, offered in enumerate(space.stage_choices)
    ]
    return measure_stages(file.backbone, choices, described, time)


def target_device(name: str) -> torch.device:
    """Return the device a space file names as its target.

    Raises:
        LatencyError: this machine has none.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise LatencyError("target.device: cuda: this machine has no CUDA device; use cpu or auto")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def describe_target(device: torch.device, batch: int) -> str:
    """Say what latencies are of."""
    threads = "" if device.type == "cuda" else f"{torch.get_num_threads()} threads on "
    return f"{threads}{describe_device()}; batches of {batch}, float32"
