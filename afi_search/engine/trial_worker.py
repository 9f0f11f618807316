"""What runs in a Ray actor: one trial after another, each from its checkpoint on."""

from __future__ import annotations

import gc
import platform
import traceback
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from ray import tune
from torch import nn

from afi_search.data import ImageSet, Split
from afi_search.data.tensor_source import pad_images
from afi_search.device import UnusableGpu, compute_device, is_fault
from afi_search.engine.limits import NoRoom, as_limit, limit_gpu, limit_memory
from afi_search.engine.metrics import WorkerMetrics, exported
from afi_search.engine.progress import tell
from afi_search.nn import build
from afi_search.registry import import_modules
from afi_search.search.conductor import Assignment
from afi_search.space import Architecture, Recipe
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
from afi_search.train.supernet import Heritage, SupernetJob


class SharedSplit:
    """A data set's split as arrays, which Ray keeps once a node and shows to all its workers.

    Args:
        split: of the data set.
        pad: pixels that the recipe pads the training images with; done here, once.
    """

    def __init__(self, split: Split, pad: int) -> None:
        padded = pad_images(split.train.images, pad - split.padding)
        self._arrays = [
            array.numpy()
            for array in (
                padded,
                split.train.labels,
                split.validation.images,
                split.validation.labels,
            )
        ]
        nothing = ImageSet(torch.empty(0), torch.empty(0))
        self._facts = replace(split, train=nothing, validation=nothing, padding=pad)

    def tensors(self) -> Split:
        """Return the split as tensors on the memory that all workers of a node share.

        They are to be read only: Ray keeps them in pages that no worker may write to.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            train, train_labels, validation, validation_labels = map(torch.from_numpy, self._arrays)
        return replace(
            self._facts,
            train=ImageSet(train, train_labels),
            validation=ImageSet(validation, validation_labels),
        )


@dataclass(frozen=True)
class TrialConfig:
    """What all trials of a study have in common.

    Attributes:
        recipe: how to train.
        checkpoints: folder or fsspec URL; each trial has its own folder in it.
        threads: CPU threads a trial computes with.
        imports, imports_from: modules that register what the study names, and their folder.
        study: its name, for the metrics.
        gpus: the share of a GPU whose memory a trial may take; 0 or 1: all of it.
        memory: bytes of the machine's memory that a trial may take beyond its empty worker; None:
            as much as there is.
        supernet: what is trained instead of a trial's architecture, which is only validated.
        heritage: where the weights are that architectures inherit, if there are any.
    """

    recipe: Recipe
    checkpoints: str
    threads: int
    imports: tuple[str, ...] = ()
    imports_from: str | None = None
    study: str = ""
    gpus: float = 0.0
    memory: int | None = None
    supernet: SupernetJob | None = None
    heritage: Heritage | None = None


def config_of(assignment: Assignment) -> dict[str, Any]:
    """Return an assignment as plain values that Tune can carry."""
    return {
        "number": assignment.number,
        "architecture": assignment.architecture.text,
        "seed": assignment.seed,
        "inherits": assignment.inherits,
    }


def settle_in(common: TrialConfig) -> None:
    """Make this process a worker of a study: its modules, threads and memory."""
    import_modules(common.imports, common.imports_from)
    torch.set_num_threads(common.threads)
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()
    limit_memory(common.memory)


def booked_device(common: TrialConfig) -> torch.device:
    """Return what a worker computes on, its share of a GPU where it has booked one.

    Raises:
        UnusableGpu, NoRoom: it cannot be used.
    """
    device = compute_device(booked=common.gpus > 0)
    limit_gpu(common.gpus)
    return device


class LostGpu(Exception):
    """A worker's GPU has a fault; no trial is to blame."""


class TrialWorker(tune.Trainable):
    """Trains the trials that Tune hands it, an epoch a step, and checkpoints each epoch.

    A step's result has the accuracies and seconds of all epochs so far, so that whoever reads it
    knows of those that an earlier driver did not live to enter. What goes wrong in a trial is a
    result too (`failed`, with the reason): the actor lives on for the next trial. What is wrong
    with the machine and not with the trial is `broken`: the study stops, and the trial waits. A
    fault of the GPU is raised: the actor ends, and the trial goes on in another.
    """

    def setup(  # type: ignore[override]  # with_parameters adds common and data
        self, config: dict[str, Any], common: TrialConfig, data: SharedSplit
    ) -> None:
        """Begin the trial of `config`, from its checkpoint where there is one."""
        settle_in(common)
        self._common = common
        self._data = data.tensors()
        self._metrics = WorkerMetrics()
        self._exporting = ExitStack()
        self._exporting.enter_context(exported(common.study, self._metrics.samples))
        gc.freeze()  # What is there by now stays: collecting between trials need not look at it.
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        del self._trainer
        gc.collect()
        torch.cuda.empty_cache()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch; after a restart, first report what the checkpoint holds."""
        try:
            return self._step()
        except DivergedError as error:
            return self._failed(str(error))
        except Exception as error:
            if is_fault(error):
                raise LostGpu(f"{platform.node()}: {_in_a_line(error)}") from None
            reason = as_limit(error, self._common.memory) or _in_a_line(error)
            return self._failed(reason, traceback.format_exc())

    def cleanup(self) -> None:
        """Stop exporting metrics."""
        self._exporting.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keep nothing with Tune: the study's own checkpoints are the only ones."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Load nothing from Tune: the study's own checkpoints are the only ones."""

    def _begin(self, config: dict[str, Any]) -> None:
        self._number: int = config["number"]
        self._architecture: str = config["architecture"]
        self._seed: int = config["seed"]
        self._inherits: bool = config.get("inherits", False)
        self._trial = {"architecture": self._architecture, "seed": self._seed}
        if self._inherits:
            self._trial["init"] = "inherited"
        self._metrics.begin(self._number)
        self._trainer: Trainer | None = None

    def _step(self) -> dict[str, Any]:
        if self._trainer is None:
            try:
                self._trainer, resumed = self._start()
            except (UnusableGpu, NoRoom) as error:
                return {"number": self._number, "broken": str(error)}
            except (OSError, CheckpointMismatch) as error:
                where = trial_location(self._common.checkpoints, self._number)
                return {"number": self._number, "broken": f"{where} cannot be used: {error}"}
            if resumed:
                return self._progress(self._trainer)
            self._tell(0.0, 0.0)
        self._metrics.trained(self._trainer.run_epoch(self._tell))
        folder = trial_location(self._common.checkpoints, self._number)
        try:
            save({**self._trainer.state_dict(), "trial": self._trial}, folder)
        except OSError as error:
            return {"number": self._number, "broken": f"{folder} cannot be written: {error}"}
        return self._progress(self._trainer)

    def _tell(self, share: float, images_per_second: float) -> None:
        epochs = len(self._trainer.history) if self._trainer else 0
        tell(self._common.study, self._number, epochs + share, images_per_second)

    def _start(self) -> tuple[Trainer, bool]:
        device = booked_device(self._common)
        architecture = Architecture.parse(self._architecture)
        recipe = self._recipe(architecture.backbone, device)
        seed_everything(self._seed)
        folder = trial_location(self._common.checkpoints, self._number)
        try:
            state = load(folder)
        except CorruptCheckpoint as error:
            warnings.warn(f"{error} The trial begins again.", stacklevel=2)
            delete(folder)
            state = None
        seed, data = self._seed, self._data
        trainer: Trainer
        if (job := self._common.supernet) is not None:
            trainer = job.trainer(architecture, recipe, data, seed=seed, device=device)
        else:
            model = self._build(architecture)
            if self._inherits and state is None:
                assert self._common.heritage is not None, "the ledger says that it inherits"
                model = self._common.heritage.network(
                    architecture, data, precision=recipe.precision, device=device
                )
            trainer = trial_trainer(model, recipe, data, seed=seed, device=device)
        if state is not None:
            trainer.load_state_dict(state)
        return trainer, bool(trainer.history)

    def _build(self, architecture: Architecture) -> nn.Module:
        return build(
            architecture,
            num_classes=self._data.spec.num_classes,
            image_size=self._data.spec.image_size,
        )

    def _recipe(self, backbone: str, device: torch.device) -> Recipe:
        """Return the recipe with the precision that this study's trials of a backbone have."""
        recipe = self._common.recipe
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

    def _failed(self, reason: str, details: str = "") -> dict[str, Any]:
        return {"number": self._number, "failed": reason, "details": details}


def _in_a_line(error: Exception) -> str:
    lines: Sequence[str] = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
