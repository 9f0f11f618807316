"""Training one model on one device, epoch by epoch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import torch
from torch import nn

from afi_search.data import Split
from afi_search.errors import UserError
from afi_search.space.recipe import Recipe
from afi_search.train.augment import Normalise, Views, crop, draw_views, pad_images
from afi_search.train.capture import Step, captured
from afi_search.train.evaluation import Evaluator
from afi_search.train.optimiser import build_optimiser, momenta
from afi_search.train.precision import autocast_dtype
from afi_search.train.schedule import learning_rate

# Steps between two looks at the loss: each look waits for the device.
LOOK_EVERY = 50


class DivergedError(Exception):
    """The loss is no longer a number."""


class CheckpointMismatch(UserError):
    """A checkpoint is of another model, recipe or data set."""


@dataclass(frozen=True)
class EpochResult:
    """One epoch.

    Attributes:
        epoch: from 1.
        accuracy: on the validation images after the epoch, 0 to 1.
        loss: mean over the epoch's samples, while training.
        seconds: training and validation.
        images_per_second: training alone.
    """

    epoch: int
    accuracy: float
    loss: float
    seconds: float
    images_per_second: float


class Trainer:
    """Trains a model by a recipe; can be stopped after any epoch and continued elsewhere.

    An epoch has ceil(images / batch_size) steps, all of them full: the last is filled up from
    the beginning of the epoch's order, with crops of their own. So every image is seen in every
    epoch, no batch is too small for its batch norms, and every step has the same shape.

    Order, crops and mirroring come from the trainer's own CPU generator, one draw an epoch, and
    are the same on every device. On CUDA the step is captured as a graph when it is first made.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        data: Split,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        """Move the model and the data to `device`.

        Args:
            model: takes B x 3 x H x W floats, returns B x num_classes.
            recipe: how to train it; its `flip` counts where the data is `mirror_safe`.
            data: training and validation images.
            seed: of the order and the augmentation; the weights' is the caller's, see
                `seed_everything`.
            device: where everything lives.
        """
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.recipe = recipe
        self.device = device
        self.history: list[EpochResult] = []
        self._seed = seed
        self._data = data
        self._padded = pad_images(data.train.images.to(device), recipe.pad - data.padding)
        self._labels = data.train.labels.to(device)
        self._normalise = Normalise(data.spec.mean, data.spec.std, device)
        self._dtype = autocast_dtype(recipe.precision, device)
        self._generator = torch.Generator().manual_seed(seed)
        self._rate = torch.zeros((), device=device)
        self._loss_sum = torch.zeros((), device=device)
        self._optimiser = build_optimiser(self.model, recipe, self._rate)
        self._validate = Evaluator(
            self.model,
            data.validation,
            mean=data.spec.mean,
            std=data.spec.std,
            device=device,
            precision=recipe.precision,
        )
        self._replay: Step | None = None
        self._batch_size = min(recipe.batch_size, len(data.train))
        self.steps_per_epoch = math.ceil(len(data.train) / self._batch_size)

    @property
    def epoch(self) -> int:
        """Return the number of finished epochs."""
        return len(self.history)

    @property
    def done(self) -> bool:
        """Return whether every epoch of the recipe is finished."""
        return self.epoch >= self.recipe.epochs

    def run_epoch(self) -> EpochResult:
        """Train one epoch, then validate.

        Raises:
            DivergedError: the loss became infinite or not a number; the model is of no use then.
            RuntimeError: the training is done.
        """
        if self.done:
            raise RuntimeError(f"all {self.recipe.epochs} epochs are finished")
        started = perf_counter()
        loss = self._train()
        trained = perf_counter()
        evaluation = self._validate()
        self._demand_finite(evaluation.loss)
        samples = self.steps_per_epoch * self._batch_size
        result = EpochResult(
            epoch=self.epoch + 1,
            accuracy=evaluation.accuracy,
            loss=loss,
            seconds=perf_counter() - started,
            images_per_second=samples / (trained - started),
        )
        self.history.append(result)
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue; its tensors are live, so save it at once."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "cuda_generator": self._cuda_state(),
            "history": [asdict(result) for result in self.history],
            "identity": self._identity(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; also sets torch's global generators.

        Raises:
            CheckpointMismatch: it is of another model, recipe, seed or data set.
        """
        mine, theirs = self._identity(), state["identity"]
        differing = [key for key in mine if mine[key] != theirs.get(key)]
        if differing:
            listed = "; ".join(f"{k}: {theirs.get(k)!r} there, {mine[k]!r} here" for k in differing)
            raise CheckpointMismatch(f"the checkpoint is of another training. {listed}")
        try:
            self.model.load_state_dict(state["model"])
            self._optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointMismatch(f"the checkpoint is of another model. {error}") from error
        self._replay = None  # What was captured works on the momentum that has just been replaced.
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate
        self._generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_generator"])
        if self.device.type == "cuda" and state["cuda_generator"] is not None:
            torch.cuda.set_rng_state(state["cuda_generator"], self.device)
        self.history = [EpochResult(**result) for result in state["history"]]

    def _train(self) -> float:
        """Run the steps of one epoch and return the mean loss."""
        self.model.train()
        self._loss_sum.zero_()
        total = self.recipe.epochs * self.steps_per_epoch
        samples = self.steps_per_epoch * self._batch_size
        views = draw_views(
            len(self._labels),
            samples,
            pad=self.recipe.pad,
            flip=self.recipe.flip and self._data.spec.mirror_safe,
            generator=self._generator,
        ).to(self.device)
        mean = 0.0
        for step in range(self.steps_per_epoch):
            position = self.epoch * self.steps_per_epoch + step
            self._rate.fill_(learning_rate(self.recipe, position, total))
            self._make_step(views.batch(step * self._batch_size, self._batch_size))
            if (step + 1) % LOOK_EVERY == 0 or step + 1 == self.steps_per_epoch:
                mean = self._loss_sum.item() / (step + 1)
                self._demand_finite(mean)
        return mean

    def _make_step(self, views: Views) -> None:
        """Make one step, on CUDA by the graph of the first one."""
        if self.device.type != "cuda":
            self._step(views)
            return
        if self._replay is None:
            optimised = [*self.model.parameters(), *momenta(self._optimiser)]
            changed = [*optimised, *self.model.buffers(), self._loss_sum]
            self._replay = captured(self._step_on, views.parts(), changed)
        self._replay(*views.parts())

    def _step_on(self, *parts: torch.Tensor) -> None:
        self._step(Views(*parts))

    def _step(self, views: Views) -> None:
        """Make one step. Reads and writes tensors only, so that a device can run ahead of it."""
        images = self._normalise(crop(self._padded, views, self.recipe.pad))
        labels = self._labels[views.index]
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype is not None):
            logits = self.model(images)
        loss = nn.functional.cross_entropy(
            logits.float(), labels, label_smoothing=self.recipe.label_smoothing
        )
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._optimiser.step()
        self._loss_sum += loss.detach()

    def _demand_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(f"loss became {loss} at epoch {self.epoch + 1}")

    def _cuda_state(self) -> torch.Tensor | None:
        return torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None

    def _identity(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "seed": self._seed,
            "train_images": len(self._data.train),
            "num_classes": self._data.spec.num_classes,
        }
