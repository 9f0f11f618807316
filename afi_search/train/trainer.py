"""Training one model, epoch by epoch, as one process of many or alone; knows nothing of Ray."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Annotated, Any, TypeAlias

import torch
import torch.distributed as dist
from pydantic import Field, TypeAdapter
from torch import Tensor, nn
from torch.func import functional_call

from afi_search.capture import Step, captured
from afi_search.data.dataset import Split
from afi_search.data.source import DataSource
from afi_search.data.tensor_source import TensorSource
from afi_search.errors import UserError
from afi_search.space.recipe import BaseRecipe, Recipe
from afi_search.train.evaluation import Evaluation, Evaluator
from afi_search.train.optimiser import build_optimiser, learning_rate, momenta
from afi_search.train.precision import Narrowed, autocast_dtype, narrowed_by_autocast

LOOK_EVERY = 50
"""Steps between two looks at the loss at most: each look waits for the device."""
LOOKS = 4
"""Looks in an epoch at least."""


class DivergedError(Exception):
    """The loss or a weight is no longer a number."""


class CheckpointMismatch(UserError):
    """A checkpoint is of another model, recipe or data set."""


Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class EpochResult:
    """One epoch.

    Attributes:
        epoch: from 1.
        accuracy: on the validation images after the epoch, 0 to 1; of the average of the weights
            where there is one.
        loss: mean over the epoch's samples, while training.
        seconds: training and validation.
        images_per_second: training alone, over all processes.
        top5: the share of the validation images whose label is among the five highest outputs;
            None where a checkpoint of an earlier version does not say.
        workers: processes that trained it.
    """

    epoch: Annotated[int, Field(ge=1)]
    accuracy: Share
    loss: float
    seconds: float
    images_per_second: float
    top5: Share | None = None
    workers: int = 1


_HISTORY = TypeAdapter(list[EpochResult])


class Trainer:
    """Trains a model by a recipe; can be stopped after any epoch and continued elsewhere.

    - The data, with its order and augmentation, is a `DataSource`: tensors on the device or images
      that are loaded.
    - Where its sharding names several processes, gradients are averaged over them, and a batch that
      a device cannot take at once is accumulated.
    - On CUDA, steps run as one CUDA graph, captured when the first one is made; what the source
      makes a batch of is in it where the source is `capturable`. With several processes it ends
      before the gradients are averaged. Batch norms over all processes are not captured.
    - SGD, learning rate, label smoothing and precision are the recipe's.
    - A training that goes on from a checkpoint ends in the same bits as one that was not cut off.

    >>> from afi_search.data import load, split
    >>> from afi_search.nn import build
    >>> from afi_search.space import Architecture
    >>> recipe, device = Recipe(epochs=2, batch_size=32), torch.device("cpu")
    >>> data = split(load("digits"), train_subset=64, validation_subset=20)
    >>> architecture = Architecture.parse("resnet20(base-r4)")
    >>> model = build(architecture, num_classes=10, image_size=32)
    >>> source = TensorSource(data, recipe, seed=0, device=device)
    >>> trainer = Trainer(model, recipe, source, identity={"seed": 0}, device=device)
    >>> while not trainer.done:
    ...     result = trainer.run_epoch()
    >>> result.epoch, 0 <= result.accuracy <= 1
    (2, True)
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: BaseRecipe,
        source: DataSource,
        *,
        identity: Mapping[str, Any],
        device: torch.device,
        ema_decay: float | None = None,
        compiled: bool = False,
    ) -> None:
        """Move the model to `device`.

        Args:
            model: takes B x 3 x H x W floats, returns B x num_classes; its weights are the same in
                every process, see `seed_everything`.
            source: of this process's batches.
            identity: settings that must match for a checkpoint to be resumed.
            ema_decay: of a running average of the weights, which is validated instead of them.
            compiled: whether torch.compile makes the kernels of a step; what it cannot compile runs
                without it.
        """
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.recipe = recipe
        self.device = device
        self.history: list[EpochResult] = []
        self.steps_per_epoch = source.steps_per_epoch
        self._source = source
        self._sharding = source.sharding
        self._identity = dict(identity)
        self._dtype = autocast_dtype(recipe.precision, device)
        self._average: Any = None
        if ema_decay is not None:
            from timm.utils.model_ema import ModelEmaV3

            self._average = ModelEmaV3(self.model, decay=ema_decay, use_warmup=True)
        self._rate = torch.zeros((), device=device)
        self._loss_sum = torch.zeros((), device=device)
        self._optimiser = build_optimiser(self.model, recipe, self._rate)
        self._run: Callable[[Tensor], Tensor] = self.model
        if compiled:
            torch._dynamo.config.suppress_errors = True
            self._run = torch.compile(self.model, dynamic=False)
        talks = any(isinstance(module, nn.SyncBatchNorm) for module in self.model.modules())
        self._on_cuda = device.type == "cuda"
        self._captures = self._on_cuda and not talks
        self._replay: Step | None = None
        narrows = self._captures and self._dtype is not None and not compiled
        self._narrow = narrowed_by_autocast(self.model) if narrows else {}
        self._evaluate = Evaluator(
            self.averaged,
            device=device,
            precision=recipe.precision,
            capture=self._on_cuda,
            world=self._sharding.world,
        )

    @property
    def epoch(self) -> int:
        """Return the number of finished epochs."""
        return len(self.history)

    @property
    def done(self) -> bool:
        """Return whether every epoch of the recipe is finished."""
        return self.epoch >= self.recipe.epochs

    @property
    def averaged(self) -> nn.Module:
        """Return what is validated and shipped: the average of the weights where there is one."""
        return self.model if self._average is None else self._average.module

    def run_epoch(self, heard: Callable[[float, float], None] | None = None) -> EpochResult:
        """Train one epoch, then validate; every process returns the same accuracy and loss.

        Args:
            heard: called at each look at the loss with the share of the epoch's steps that are
                made, and images a second.

        Raises:
            DivergedError: the loss or a weight became infinite or not a number; the model is of no
                use then.
            RuntimeError: the training is done.
        """
        if self.done:
            raise RuntimeError(f"all {self.recipe.epochs} epochs are finished")
        started = perf_counter()
        loss = self._train(heard)
        self._require_finite("weights", nn.utils.get_total_norm(self.model.parameters()).item())
        trained = perf_counter()
        if self._sharding.world > 1:
            for buffer in self.averaged.buffers():  # The first one's, as the checkpoint has them.
                dist.broadcast(buffer, src=0)
        evaluation = self._validate()
        samples = self.steps_per_epoch * self._sharding.batch_size
        result = EpochResult(
            epoch=self.epoch + 1,
            accuracy=evaluation.accuracy,
            loss=loss,
            seconds=perf_counter() - started,
            images_per_second=samples / (trained - started),
            top5=evaluation.top5,
            workers=self._sharding.world,
        )
        self.history.append(result)
        return result

    def step(self, number: int, rounds: Sequence[Sequence[Tensor]]) -> None:
        """Make one step of all, counted from 0, on what the source yields for it."""
        total = self.recipe.epochs * self.steps_per_epoch
        self._rate.fill_(learning_rate(self.recipe, number, total))
        batch = self._source.batch
        if not self._captures:
            self._backward(batch(*parts) for parts in rounds)
            self._descend()
        else:
            given = rounds if self._source.capturable else [batch(*parts) for parts in rounds]
            inputs = [tensor for parts in given for tensor in parts]
            self._replay = self._replay or self._captured(inputs)
            self._replay(*inputs)
            if self._sharding.world > 1:
                self._descend()
        if self._average is not None:
            self._average.update(self.model, step=number)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue; its tensors are live, so save it at once."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "ema": None if self._average is None else self._average.module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "generator": self._source.get_state(),
            "torch_generator": torch.get_rng_state(),
            "cuda_generator": torch.cuda.get_rng_state(self.device) if self._on_cuda else None,
            "history": [asdict(result) for result in self.history],
            "identity": self._identity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; also sets torch's global generators.

        Raises:
            CheckpointMismatch: `state` is of another model, recipe, seed or data set.
        """
        try:
            require_same(self._identity, state["identity"])
            self._continue(state)
        except KeyError as missing:
            raise CheckpointMismatch(f"the checkpoint has no {missing}") from missing
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointMismatch(f"the checkpoint is of another model. {error}") from error

    def _continue(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self._average is not None:
            self._average.module.load_state_dict(state["ema"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._replay = None  # What was captured works on the momentum that has just been replaced.
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate
        self._source.set_state(state["generator"])
        torch.set_rng_state(state["torch_generator"])
        if self._on_cuda and state["cuda_generator"] is not None:
            torch.cuda.set_rng_state(state["cuda_generator"], self.device)
        self.history = _HISTORY.validate_python(state["history"])

    def _train(self, heard: Callable[[float, float], None] | None = None) -> float:
        """Run the steps of one epoch and return the mean loss."""
        started = perf_counter()
        self.model.train()
        self._loss_sum.zero_()
        batches = self._source.epoch(self.epoch)
        mean, every = 0.0, min(LOOK_EVERY, -(-self.steps_per_epoch // LOOKS))
        for step in range(self.steps_per_epoch):
            rounds = [next(batches) for _ in range(self._sharding.accumulation_steps)]
            self.step(self.epoch * self.steps_per_epoch + step, rounds)
            if (step + 1) % every == 0 or step + 1 == self.steps_per_epoch:
                mean = self._mean_loss(step + 1)
                self._require_finite("loss", mean)
                if heard is not None:
                    images = (step + 1) * self._sharding.batch_size
                    heard((step + 1) / self.steps_per_epoch, images / (perf_counter() - started))
        return mean

    def _captured(self, inputs: Sequence[Tensor]) -> Step:
        """Return a step on tensors like `inputs`; of several processes, up to their averaging."""
        rounds, batch = self._sharding.accumulation_steps, self._source.batch
        parts = len(inputs) // rounds

        def step(*tensors: Tensor) -> None:
            given = (tensors[at : at + parts] for at in range(0, len(tensors), parts))
            self._backward(batch(*each) if self._source.capturable else each for each in given)
            if self._sharding.world == 1:
                self._descend()

        changed = [*self.model.parameters(), *momenta(self._optimiser), *self.model.buffers()]
        replay = captured(step, inputs, [*changed, self._loss_sum])
        if replay is step:  # Whatever it failed for, a module may want its weights as they are.
            self._narrow = {}
        return replay

    def _backward(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Add up a step's gradients, in tensors only, so that a device can run ahead of it."""
        self._optimiser.zero_grad(set_to_none=True)
        for images, labels in batches:
            self._loss_sum += self._learn(images, labels, self._sharding.accumulation_steps)

    def _descend(self) -> None:
        """Change the weights by the gradients, averaged over all processes."""
        # Not DistributedDataParallel: it averages in autograd's hooks, which a captured step does
        # not run, and a capture that fails in one process would leave the others waiting for it.
        world = self._sharding.world
        if world > 1:
            gradients = [of.grad for of in self.model.parameters() if of.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients]) / world
            dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in gradients])
            pairs = zip(parts, gradients, strict=True)
            torch._foreach_copy_(gradients, [part.view_as(own) for part, own in pairs])
        self._optimiser.step()

    def _learn(self, images: Tensor, labels: Tensor, rounds: int) -> Tensor:
        """Add the gradients of one of a step's batches to the others'; return its loss."""
        loss = self._loss(self._logits(images), labels)
        torch.autograd.backward(loss / rounds if rounds > 1 else loss)
        return loss.detach()

    def _logits(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype is not None):
            if self._captures and self._narrow:
                weights = Narrowed.apply(self._dtype, *self._narrow.values())
                narrow = dict(zip(self._narrow, weights, strict=True))
                return functional_call(self.model, narrow, (images,)).float()
            return self._run(images).float()

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        return nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)

    def _validate(self) -> Evaluation:
        return self._evaluate(self._source.validation())

    def _mean_loss(self, steps: int) -> float:
        """Return the mean over the epoch's steps so far, of all processes."""
        total = self._loss_sum.clone()
        if self._sharding.world > 1:
            dist.all_reduce(total)
        return total.item() / (steps * self._sharding.accumulation_steps * self._sharding.world)

    def _require_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise DivergedError(f"{name} became {value} at epoch {self.epoch + 1}")


def trial_trainer(
    model: nn.Module, recipe: Recipe, data: Split, *, seed: int, device: torch.device
) -> Trainer:
    """Return the trainer of a trial: on tensors that lie on `device`.

    Args:
        seed: of order and augmentation; the weights' is the caller's, see `seed_everything`.
    """
    source = TensorSource(data, recipe, seed=seed, device=device)
    identity = trial_identity(recipe, data, seed)
    return Trainer(model, recipe, source, identity=identity, device=device)


def trial_identity(recipe: Recipe, data: Split, seed: int) -> dict[str, Any]:
    """Return what makes another training of a trial."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "train_images": len(data.train),
        "num_classes": data.spec.num_classes,
    }


def require_same(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Make sure that a checkpoint is of this training: a CheckpointMismatch lists what differs."""
    differing = [key for key in mine if mine[key] != theirs.get(key)]
    if differing:
        listed = "; ".join(f"{k}: {theirs.get(k)!r} there, {mine[k]!r} here" for k in differing)
        raise CheckpointMismatch(f"the checkpoint is of another training. {listed}")


def synchronised(model: nn.Module, world: int, device: torch.device) -> nn.Module:
    """Return a network whose batch norms work over all GPUs together; alone or on CPUs, itself."""
    if world == 1 or device.type != "cuda":
        return model
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return converted
