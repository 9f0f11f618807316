"""Training one model on images in folders, as one process of many or alone; knows nothing of Ray.

Nothing random outlives an epoch: order, crops and mixtures are drawn from seeds made of the
recipe's seed, the epoch and the process. So the end of an epoch, together with the weights, their
average and the optimiser's state, is all that is needed to go on, with as many processes as there
are then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.transforms import v2

from afi_search.data.image_loader import Loader, Shares, derived_seed, evaluation
from afi_search.space.imagenet_recipe import ImageNetRecipe
from afi_search.train import CheckpointMismatch, DivergedError, autocast_dtype, learning_rate
from afi_search.train.optimiser import build_optimiser

TOP = 5
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Attributes:
        epoch: from 1.
        top1, top5: share of the validation images, 0 to 1, of the average of the weights where
            the recipe keeps one.
        loss: mean over the epoch's samples, while training.
        seconds: training and validation.
        images_per_second: training alone, over all processes.
        workers: processes that trained it.
    """

    epoch: int
    top1: float
    top5: float
    loss: float
    seconds: float
    images_per_second: float
    workers: int


class ImageTrainer:
    """Trains a model by a recipe, an epoch at a time.

    Args:
        model: B x 3 x H x W to B x num_classes; drawn with the same seed in every process.
        recipe: how.
        loader: of this process's batches.
        shares: how a step's batch is shared out.
        images: training images an epoch.
        num_classes: outputs.
        identity: what a checkpoint has to agree on to be gone on with.
        device: of this process.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: ImageNetRecipe,
        loader: Loader,
        shares: Shares,
        *,
        images: int,
        num_classes: int,
        identity: dict[str, Any],
        device: torch.device,
    ) -> None:
        self.recipe = recipe
        self.device = device
        self.history: list[Epoch] = []
        self._loader = loader
        self._shares = shares
        self._identity = identity
        self._steps = shares.steps(images)
        if recipe.sync_batch_norm:
            model = synchronised(model, shares.world, device)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self._ema = (
            ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True)
            if recipe.ema_decay is not None
            else None
        )
        self._rate = torch.zeros((), device=device)
        self._optimiser = build_optimiser(self.model, recipe, self._rate)
        self._replica: nn.Module = (
            DistributedDataParallel(
                self.model,
                device_ids=[device] if device.type == "cuda" else None,
                gradient_as_bucket_view=True,
            )
            if shares.world > 1
            else self.model
        )
        self._mix = make_mix(recipe, num_classes)
        self._preprocessing = evaluation(recipe)
        self._dtype = autocast_dtype(recipe.precision, device)

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def done(self) -> bool:
        """Whether every epoch of the recipe is finished."""
        return self.epoch >= self.recipe.epochs

    @property
    def best(self) -> nn.Module:
        """The network to test and to ship: the average of the weights where there is one."""
        return self._ema.module if self._ema is not None else self.model

    def run_epoch(self) -> Epoch:
        """Train one epoch, then validate; every process returns the same figures.

        Raises:
            DivergedError: the loss is no longer a number.
        """
        torch.manual_seed(derived_seed(self.recipe.seed, self.epoch, self._shares.rank))
        started = perf_counter()
        loss = self._train()
        trained = perf_counter() - started
        top1, top5 = self._validate()
        result = Epoch(
            epoch=self.epoch + 1,
            top1=top1,
            top5=top5,
            loss=loss,
            seconds=perf_counter() - started,
            images_per_second=self._steps * self._shares.batch_size / trained,
            workers=self._shares.world,
        )
        self.history.append(result)
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on; its tensors are live, so save it at once."""
        return {
            "epoch": self.epoch,
            "identity": self._identity,
            "model": self.model.state_dict(),
            "ema": None if self._ema is None else self._ema.module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            CheckpointMismatch: it is of another model, recipe or data set.
        """
        demand_same(self._identity, state["identity"])
        self.model.load_state_dict(state["model"])
        if self._ema is not None:
            self._ema.module.load_state_dict(state["ema"])
        self._optimiser.load_state_dict(state["optimiser"])
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    def step(self, step: int, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Make one step of all, counted from 0, with one batch a round; return the loss's sum."""
        total = self.recipe.epochs * self._steps
        self._rate.fill_(learning_rate(self.recipe, step, total))
        losses = torch.zeros((), device=self.device)
        for last, (images, labels) in zip(_marks_last(len(batches)), batches, strict=True):
            waits = isinstance(self._replica, DistributedDataParallel) and not last
            with self._replica.no_sync() if waits else nullcontext():  # type: ignore[operator]
                loss = self._loss(images, labels)
                torch.autograd.backward(loss / len(batches))
            losses += loss.detach()
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        if self._ema is not None:
            self._ema.update(self.model, step=step)
        return losses

    def _train(self) -> float:
        self._replica.train()
        batches = self._loader.train(self.epoch)
        loss = torch.zeros((), device=self.device)
        for step in range(self._steps):
            rounds = [next(batches) for _ in range(self._shares.rounds)]
            loss += self.step(self.epoch * self._steps + step, rounds)
        mean = loss / (self._steps * self._shares.rounds)
        self._sum(mean)
        value = mean.item() / self._shares.world
        if not math.isfinite(value):
            raise DivergedError(f"loss became {value} at epoch {self.epoch + 1}")
        return value

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        pixels, labels = self._moved(images, labels)
        if self._mix is not None:
            pixels, labels = self._mix(pixels, labels)
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype is not None):
            logits = self._replica(pixels)
        return nn.functional.cross_entropy(
            logits.float(), labels, label_smoothing=self.recipe.label_smoothing
        )

    def _validate(self) -> tuple[float, float]:
        """Return top-1 and top-5 over all processes' images."""
        model = self.best
        self._share_buffers(model)
        model.eval()
        counts = torch.zeros(3, dtype=torch.int64, device=self.device)
        for images, labels in self._loader.validation():
            pixels, labels = self._moved(images, labels)
            dtype = self._dtype
            with (
                torch.no_grad(),
                torch.autocast(self.device.type, dtype, enabled=dtype is not None),
            ):
                logits = model(pixels).float()
            hits = logits.topk(min(TOP, logits.shape[1])).indices == labels[:, None]
            counts[0] += hits[:, 0].sum()
            counts[1] += hits.any(dim=1).sum()
            counts[2] += len(labels)
        self._sum(counts)
        top1, top5, images_seen = counts.tolist()
        return top1 / images_seen, top5 / images_seen

    def _moved(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        moved = images.to(self.device, non_blocking=True)
        return self._preprocessing.normalised(moved), labels.to(self.device, non_blocking=True)

    def _share_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's batch-norm statistics, as the checkpoint has them."""
        if self._shares.world > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def _sum(self, values: Tensor) -> None:
        if self._shares.world > 1:
            dist.all_reduce(values)


def synchronised(model: nn.Module, world: int, device: torch.device) -> nn.Module:
    """Return a network whose batch norms work over all GPUs together; alone or on CPUs, itself."""
    if world == 1 or device.type != "cuda":
        return model
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return converted


def make_mix(recipe: ImageNetRecipe, num_classes: int) -> Mix | None:
    """Return what mixes the images and labels of a batch; None where the recipe mixes nothing."""
    mixes: list[v2.Transform] = []
    if recipe.mixup:
        mixes.append(v2.MixUp(alpha=recipe.mixup, num_classes=num_classes))
    if recipe.cutmix:
        mixes.append(v2.CutMix(alpha=recipe.cutmix, num_classes=num_classes))
    return v2.RandomChoice(mixes) if mixes else None


def demand_same(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Make sure that a checkpoint is of the training that is asked for.

    Raises:
        CheckpointMismatch: it is not; the message lists what differs.
    """
    differing = [key for key in mine if mine[key] != theirs.get(key)]
    if differing:
        listed = "; ".join(f"{k}: {theirs.get(k)!r} there, {mine[k]!r} here" for k in differing)
        raise CheckpointMismatch(
            f"the checkpoint is of another training. {listed}. Take the settings back, or give "
            f"--name to begin another one beside it."
        )


def _marks_last(count: int) -> list[bool]:
    return [index == count - 1 for index in range(count)]
