"""What runs in a Ray actor: one trial after another, each from its checkpoint on."""

from __future__ import annotations

import gc
import platform
import traceback
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune
from torch import nn

from afi_search.cost import CostTable
from afi_search.data import Split
from afi_search.device import UnusableGpu, compute_device, is_fault
from afi_search.engine.capacity import Capacity
from afi_search.engine.limits import NoRoom, as_limit, limit_gpu, limit_memory
from afi_search.engine.metrics import Sample, exported, worker_samples
from afi_search.engine.progress import tell
from afi_search.files import require_there
from afi_search.nn import build
from afi_search.registry import import_modules
from afi_search.space import Architecture, Recipe, SpaceFile
from afi_search.study.checkpoint_location import trial_location
from afi_search.train import (
    CheckpointMismatch,
    CorruptCheckpoint,
    DivergedError,
    Trainer,
    delete,
    keep_freed_memory,
    load,
    resolve_precision,
    save,
    seed_everything,
    trial_trainer,
)
from afi_search.train.supernet import InheritedAccuracy, inherited_accuracy, supernet_trainer


@dataclass(frozen=True)
class TrialConfig:
    """What all trials of a study have in common.

    Attributes:
        checkpoints: folder or fsspec URL; each trial has its own folder in it.
        capacity: what a worker gets; a trial may take no more memory than that.
        study: its name, for the metrics.
        supernet: costs of the architectures whose supernet is trained instead of a trial's own
            architecture, which is only validated.
        heritage: the checkpoints of the supernet whose weights trials inherit, if there is one.
    """

    file: SpaceFile
    checkpoints: str
    capacity: Capacity
    study: str = ""
    supernet: CostTable | None = None
    heritage: str | None = None

    def inherited(self, data: Split, precision: str, device: torch.device) -> InheritedAccuracy:
        """Return what gives architectures the weights that they inherit."""
        assert self.heritage is not None, "the ledger says that it inherits"
        return inherited_accuracy(
            self.file, self.heritage, data, precision=precision, device=device
        )


def settle_in(common: TrialConfig) -> None:
    """Make this process a worker of a study: its modules, threads and memory."""
    import_modules(common.file.imports, common.file.imports_from)
    torch.set_num_threads(common.capacity.threads)
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()
    limit_memory(common.capacity.memory)


def booked_device(share: float) -> torch.device:
    """Return a worker's device, by its booked share of a GPU, or 0; else UnusableGpu or NoRoom."""
    device = compute_device(booked=share > 0)
    limit_gpu(share)
    return device


class LostGpu(Exception):
    """A worker's GPU has a fault; no trial is to blame."""


class TrialWorker(tune.Trainable):
    """Trains the trials that Tune hands it, an epoch a step, and checkpoints each epoch.

    A trial's `config` has the fields of an `Assignment`, the architecture as its text.
    A step's result has the accuracies and seconds of all epochs so far, so that whoever reads it
    knows of those that an earlier driver did not live to enter. What goes wrong in a trial is a
    result too (`failed`, with the reason): the actor lives on for the next trial. What is wrong
    with the machine and not with the trial is `broken`: the study stops, and the trial waits. A
    fault of the GPU is raised: the actor ends, and the trial goes on in another.
    """

    _trainer: Trainer | None = None

    def setup(  # type: ignore[override]  # with_parameters adds common and data
        self, config: dict[str, Any], common: TrialConfig, data: Split
    ) -> None:
        """Begin the trial of `config`, from its checkpoint where there is one."""
        settle_in(common)
        self._common = common
        self._data = data
        self._exporting = ExitStack()
        gc.freeze()  # What is there by now stays: collecting between trials need not look at it.
        self._begin(config)
        self._exporting.enter_context(exported(common.study, self._samples))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        self._trainer = None
        gc.collect()
        torch.cuda.empty_cache()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch; after a restart, first report what the checkpoint holds."""
        try:
            return self._step()
        except DivergedError as error:
            return {"number": self._number, "failed": str(error), "details": ""}
        except Exception as error:
            if is_fault(error):
                raise LostGpu(f"{platform.node()}: {_in_a_line(error)}") from None
            reason = as_limit(error, self._common.capacity.memory) or _in_a_line(error)
            details = traceback.format_exc()
            return {"number": self._number, "failed": reason, "details": details}

    def cleanup(self) -> None:
        """Stop exporting metrics."""
        self._exporting.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keep nothing with Tune: the study's own checkpoints are the only ones."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Load nothing from Tune: the study's own checkpoints are the only ones."""

    def _begin(self, config: dict[str, Any]) -> None:
        self._number: int = config["number"]
        self._inherits: bool = config.get("inherits", False)
        self._trial = {name: config[name] for name in ("architecture", "seed")}
        if self._inherits:
            self._trial["init"] = "inherited"
        self._folder = trial_location(self._common.checkpoints, self._number)

    def _step(self) -> dict[str, Any]:
        if self._trainer is None:
            try:
                self._trainer = self._start()
            except (UnusableGpu, NoRoom) as error:
                return self._broken(str(error))
            except (OSError, CheckpointMismatch) as error:
                return self._broken(f"{self._folder} cannot be used: {error}")
            if self._trainer.history:
                return self._progress(self._trainer)
            self._tell(0.0, 0.0)
        self._trainer.run_epoch(self._tell)
        try:
            require_there(self._common.checkpoints)
            save({**self._trainer.state_dict(), "trial": self._trial}, self._folder)
        except OSError as error:
            return self._broken(f"{self._folder} cannot be written: {error}")
        return self._progress(self._trainer)

    def _samples(self) -> list[Sample]:
        trainer = self._trainer
        return worker_samples(self._number, trainer.history if trainer else ())

    def _tell(self, share: float, images_per_second: float) -> None:
        epochs = len(self._trainer.history) if self._trainer else 0
        tell(self._common.study, self._number, epochs + share, images_per_second)

    def _start(self) -> Trainer:
        common, data, seed = self._common, self._data, self._trial["seed"]
        device = booked_device(common.capacity.gpus)
        architecture = Architecture.parse(self._trial["architecture"])
        recipe = self._recipe(architecture.backbone, device)
        seed_everything(seed)
        try:
            state = load(self._folder)
        except CorruptCheckpoint as error:
            warnings.warn(f"{error} The trial begins again.", stacklevel=2)
            delete(self._folder)
            state = None
        trainer: Trainer
        if common.supernet is not None:
            trainer = supernet_trainer(
                common.file, common.supernet, architecture, recipe, data, seed=seed, device=device
            )
        else:
            model = self._build(architecture)
            if self._inherits and state is None:
                model = common.inherited(data, recipe.precision, device).network(architecture)
            trainer = trial_trainer(model, recipe, data, seed=seed, device=device)
        if state is not None:
            trainer.load_state_dict(state)
        return trainer

    def _build(self, architecture: Architecture) -> nn.Module:
        spec = self._data.spec
        return build(architecture, num_classes=spec.num_classes, image_size=spec.image_size)

    def _recipe(self, backbone: str, device: torch.device) -> Recipe:
        """Return the recipe with the precision that this study's trials of a backbone have."""
        recipe = self._common.file.recipe
        precision = resolve_precision(
            recipe.precision,
            backbone,
            make=lambda: self._build(Architecture.plain(backbone)),
            batch_size=recipe.batch_size,
            image_size=self._data.spec.image_size,
            device=device,
            folder=self._common.checkpoints,
        )
        return recipe.model_copy(update={"precision": precision})

    def _progress(self, trainer: Trainer) -> dict[str, Any]:
        history, last = trainer.history, trainer.history[-1]
        return {
            "number": self._number,
            "accuracies": [epoch.accuracy for epoch in history],
            "seconds": sum(epoch.seconds for epoch in history),
            "timesteps_total": last.epoch,  # by which loggers place what follows
            "accuracy": last.accuracy,
            "loss": last.loss,
            "images_per_second": last.images_per_second,
        }

    def _broken(self, reason: str) -> dict[str, Any]:
        return {"number": self._number, "broken": reason}


def _in_a_line(error: Exception) -> str:
    lines: Sequence[str] = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
