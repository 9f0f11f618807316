"""What runs in a worker of Ray Train: the training loop, and the probe before it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from ray import train as ray_train
from ray.train.torch import get_device
from ray.util.queue import Queue
from torch import nn

from afi_search.data.dali import DaliLoader
from afi_search.data.image_folder import Images, list_images
from afi_search.data.image_loader import ImageSource, Loader, TorchvisionLoader, share_out
from afi_search.data.source import Batch, BatchSharding
from afi_search.nn import build, warm_start
from afi_search.promote.estimate import Probe
from afi_search.space import Architecture
from afi_search.space.checks import IMAGENET_SIZE
from afi_search.space.imagenet_recipe import ImageNetRecipe
from afi_search.space.schema import LoaderName, import_modules
from afi_search.train import (
    DivergedError,
    Trainer,
    keep_freed_memory,
    load,
    resolve_precision,
    save,
    seed_everything,
)
from afi_search.train.trainer import synchronised

_WARM_UP, _STEPS = 2, 3
_LOADER_SECONDS = 5.0


@dataclass(frozen=True)
class Task:
    """One promotion, as every worker has to know it.

    Attributes:
        architecture: what to train.
        recipe: how.
        folder: with train/ and val/, at the same place on every node.
        skipped: images to leave out, as paths below the folder.
        classes: the class folders.
        train_images: how many there are, as the driver sees it.
        checkpoints: folder or fsspec URL that every node reaches.
        pretrained: weights to start from.
        cores: CPU cores of each worker.
        processes: that load and augment, for each worker.
        loader: `torchvision` or `dali`.
        study: the study's name, for the model card; empty without one.
        imports: modules that register a third party's backbones.
    """

    architecture: Architecture
    recipe: ImageNetRecipe
    folder: Path
    skipped: tuple[str, ...]
    classes: tuple[str, ...]
    train_images: int
    checkpoints: str
    pretrained: str | None
    cores: int
    processes: int
    loader: LoaderName = "torchvision"
    study: str = ""
    imports: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that must match for a checkpoint to be resumed; workers may come and go."""
        return {
            "architecture": self.architecture.text,
            "recipe": self.recipe.model_dump(mode="json", exclude={"images_per_device"}),
            "classes": list(self.classes),
            "train_images": self.train_images,
        }

    @property
    def origin(self) -> dict[str, Any]:
        """What a model card says of where the network comes from; it goes into the checkpoint."""
        return {
            **({"study": self.study} if self.study else {}),
            **({"started from": self.pretrained} if self.pretrained else {}),
            "images left out": len(self.skipped),
            "loader": self.loader,
        }


def train_worker(config: dict[str, Any]) -> None:
    """Train from the last checkpoint to the recipe's end; tell the driver of every epoch.

    Args:
        config: `task` and `news`, the queue to the driver.
    """
    task: Task = config["task"]
    news: Queue = config["news"]
    context = ray_train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = get_device()
    images = list_images(task.folder, task.skipped)
    recipe = task.recipe
    sharding = share_out(recipe.batch_size, recipe.images_per_device, rank, world)
    loader = make_loader(task, images, sharding, device)
    trainer = make_trainer(task, images, loader, sharding, device)
    state = load(task.checkpoints)
    if state is not None:
        trainer.load_state_dict(state)
    while not trainer.done:
        try:
            epoch = trainer.run_epoch()
        except DivergedError as error:
            if rank == 0:
                news.put({"failed": str(error)})
            return
        if rank == 0:
            save({**trainer.state_dict(), "origin": task.origin}, task.checkpoints)
            news.put({"history": [asdict(past) for past in trainer.history]})
        ray_train.report({"epoch": epoch.epoch, "top1": epoch.accuracy, "loss": epoch.loss})


def probe(task: Task, world: int) -> Probe:
    """Measure a few training steps and a few seconds of loading, as one worker of `world`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = list_images(task.folder, task.skipped)
    recipe = task.recipe
    shared = share_out(recipe.batch_size, recipe.images_per_device, 0, world)
    alone = BatchSharding(0, 1, 1, shared.per_device_batch)
    loader = make_loader(task, images, alone, device)
    loader_speed = measure_loader(loader)
    trainer = make_trainer(task, images, loader, alone, device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    size, crop = alone.per_device_batch, recipe.train_crop
    model_speed = measure_steps(trainer, size, crop, len(task.classes), device)
    return Probe(
        model_speed,
        loader_speed,
        memory=torch.cuda.max_memory_allocated(device)
        if on_gpu
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        weights=sum(tensor.numel() for tensor in trainer.model.state_dict().values()),
        on_gpu=on_gpu,
    )


def make_model(task: Task) -> nn.Module:
    """Return the network before any training, with weights that the recipe's seed decides."""
    seed_everything(task.recipe.seed)
    return build(task.architecture, num_classes=len(task.classes), image_size=IMAGENET_SIZE)


def make_loader(
    task: Task, images: Images, sharding: BatchSharding, device: torch.device
) -> Loader:
    """Return the loader that is asked for."""
    if task.loader == "dali":
        return DaliLoader(images, task.recipe, sharding, max(1, task.processes), device)
    return TorchvisionLoader(images, task.recipe, sharding, task.processes)


def make_trainer(
    task: Task, images: Images, loader: Loader, sharding: BatchSharding, device: torch.device
) -> Trainer:
    """Build the network, the same in every worker, and its trainer."""
    import_modules(task.imports)
    if device.type == "cpu":
        torch.set_num_threads(task.cores)
        keep_freed_memory()
    backbone = task.architecture.backbone
    precision = resolve_precision(
        task.recipe.precision,
        backbone,
        make=lambda: make_model(replace(task, architecture=Architecture.plain(backbone))),
        batch_size=sharding.per_device_batch,
        image_size=task.recipe.train_crop,
        device=device,
        folder=task.checkpoints,
    )
    model = make_model(task)
    if task.pretrained is not None:
        warm_start(model, task.pretrained)
    if task.recipe.sync_batch_norm:
        model = synchronised(model, sharding.world, device)
    source = ImageSource(
        loader,
        task.recipe,
        sharding,
        images=len(images.train),
        num_classes=len(task.classes),
        device=device,
    )
    return Trainer(
        model,
        task.recipe.model_copy(update={"precision": precision}),
        source,
        identity=task.identity,
        device=device,
        ema_decay=task.recipe.ema_decay,
    )


def measure_loader(loader: Loader) -> float:
    """Return images/s of loading alone, over a few seconds after the first batch."""
    batches: Iterator[Batch] = loader.train(0)
    first, _ = next(batches)
    started, seen = perf_counter(), 0
    for images, _ in batches:
        seen += len(images)
        if perf_counter() - started > _LOADER_SECONDS:
            break
    return (seen or len(first)) / (perf_counter() - started)


def measure_steps(
    trainer: Trainer, size: int, crop: int, classes: int, device: torch.device
) -> float:
    """Return images/s of training steps on made-up images."""
    pixels = torch.randint(0, 256, (size, 3, crop, crop), dtype=torch.uint8)
    labels = torch.arange(size) % classes
    trainer.model.train()
    for step in range(_WARM_UP + _STEPS):
        if step == _WARM_UP:
            _finish(device)
            started = perf_counter()
        trainer.step(step, [(pixels, labels)])
    _finish(device)
    return _STEPS * size / (perf_counter() - started)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
