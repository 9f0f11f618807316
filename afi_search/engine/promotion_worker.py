"""What runs in a worker of Ray Train: the training loop, and the probe before it."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
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
from afi_search.device import compute_device
from afi_search.engine.capacity import Capacity
from afi_search.errors import to_mend
from afi_search.files import require_there, write_once
from afi_search.model.from_checkpoint import with_shared_names
from afi_search.nn import build, load_pretrained
from afi_search.registry import import_modules
from afi_search.space import Architecture
from afi_search.space.backbone import IMAGENET_SIZE
from afi_search.space.recipe import ImageNetRecipe
from afi_search.space.schema import LoaderName
from afi_search.study.folder import StudyFile
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

SHA256 = "SHA-256 of what it started from"
CAPTURED, COMPILED = "captured", "compiled"
COMPILING_PAYS = 2 * 3600
"""Seconds of a training on a GPU from which it is measured whether a compiled step is faster:
compiling takes minutes, on every node."""
_FASTER = 1.03
_WARM_UP, _STEPS = 2, 3
_LOADER_SECONDS = 5.0


@dataclass(frozen=True)
class PromotionConfig:
    """One promotion, as every worker has to know it.

    Attributes:
        folder: with train/ and val/, at the same place on every node.
        skipped: images to leave out, as paths below the folder.
        skip_broken: whether what turns out broken later is left out as well.
        train_images, validation_images: how many there are, as the driver sees them.
        checkpoints: folder or fsspec URL that every node reaches.
        pretrained_sha256: of the weights to start from; empty where they are not there any more.
    """

    architecture: Architecture
    recipe: ImageNetRecipe
    folder: Path
    skipped: tuple[str, ...]
    classes: tuple[str, ...]
    train_images: int
    validation_images: int
    checkpoints: str
    pretrained: str | None
    capacity: Capacity
    loader: LoaderName = "torchvision"
    skip_broken: bool = False
    study: StudyFile | None = None
    pretrained_sha256: str = ""

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
            **({"study": self.study.name} if self.study else {}),
            **({"started from": self.pretrained} if self.pretrained else {}),
            **({SHA256: self.pretrained_sha256} if self.pretrained_sha256 else {}),
            "images left out": len(self.skipped),
            "loader": self.loader,
        }


@dataclass(frozen=True)
class Probe:
    """What one worker measured.

    Attributes:
        model_speed: images/s of the training step, on images that are there already.
        loader_speed: images/s of loading and augmenting alone, or NaN where it was not measured.
        memory: bytes at the most, of the GPU where there is one, otherwise of the process.
        weights: numbers in the network's state.
        on_gpu: whether `memory` is a GPU's.
    """

    model_speed: float
    loader_speed: float
    memory: int
    weights: int
    on_gpu: bool


def train_worker(given: dict[str, Any]) -> None:
    """Train from the last checkpoint to the recipe's end; tell the driver of every epoch.

    Args:
        given: `config`, and `news`: a queue to the driver for histories, for images that were
            left out and for why it failed, where trying again cannot help.
    """
    news: Queue = given["news"]
    try:
        _train(given["config"], news)
    except DivergedError as error:
        news.put(f"{error}; lower lr in the recipe")
        raise
    except Exception as error:
        if reason := to_mend(error):
            news.put(f"{reason}. Mend it, and the same command goes on.")
        raise


def _train(config: PromotionConfig, news: Queue) -> None:
    context = ray_train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    require_there(config.checkpoints)
    compute_device(booked=config.capacity.gpus > 0)
    device = get_device()
    images = list_images(config.folder, config.skipped)
    recipe = config.recipe
    sharding = share_out(recipe.batch_size, recipe.images_per_device, rank, world)
    loader = make_loader(config, images, sharding, device)
    compiled = write_once(_way(config), lambda: CAPTURED) == COMPILED
    trainer = make_trainer(config, images, loader, sharding, device, compiled=compiled)
    state = load(config.checkpoints)
    if state is not None:
        trainer.load_state_dict(with_shared_names(state))
    while not trainer.done:
        epoch = trainer.run_epoch()
        if rank == 0:
            kept = {"origin": config.origin, "skipped": list(config.skipped), "sizes": images.sizes}
            require_there(config.checkpoints)
            save({**trainer.state_dict(), **kept}, config.checkpoints)
            news.put(trainer.history)
        if loader.left_out:
            news.put(dict(loader.left_out))
        ray_train.report({"epoch": epoch.epoch, "top1": epoch.accuracy, "loss": epoch.loss})


def probe(config: PromotionConfig) -> Probe:
    """Measure a few training steps and a few seconds of loading, as one worker of several."""
    device, world = compute_device(booked=config.capacity.gpus > 0), config.capacity.concurrency
    images = list_images(config.folder, config.skipped)
    recipe = config.recipe
    shared = share_out(recipe.batch_size, recipe.images_per_device, 0, world)
    alone = BatchSharding(0, 1, 1, shared.per_device_batch)
    loader = make_loader(config, images, alone, device)
    loader_speed = measure_loader(loader)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    size, crop = alone.per_device_batch, recipe.train_crop

    @cache
    def speed(way: str) -> float:
        trainer = make_trainer(config, images, loader, alone, device, compiled=way == COMPILED)
        return measure_steps(trainer, size, crop, len(config.classes), device)

    seconds = recipe.epochs * config.train_images / (world * speed(CAPTURED))
    way = resolve_way(config, seconds, speed) if on_gpu else CAPTURED
    return Probe(
        speed(way),
        loader_speed,
        memory=torch.cuda.max_memory_allocated(device)
        if on_gpu
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        weights=sum(tensor.numel() for tensor in make_model(config).state_dict().values()),
        on_gpu=on_gpu,
    )


def resolve_way(config: PromotionConfig, seconds: float, speed: Callable[[str], float]) -> str:
    """Return how a promotion's steps are made on GPUs: CAPTURED, or COMPILED and then captured.

    Measured for long trainings, once a promotion: all its workers keep to it, after a restart too.

    Args:
        seconds: that the training would take, captured.
        speed: images/s of a way; may fail.
    """

    def faster() -> str:
        if seconds < COMPILING_PAYS:
            return CAPTURED
        try:
            return COMPILED if speed(COMPILED) > _FASTER * speed(CAPTURED) else CAPTURED
        except Exception:
            return CAPTURED

    return write_once(_way(config), faster)


def _way(config: PromotionConfig) -> str:
    return f"{config.checkpoints}/{config.architecture.slug}.way"


def make_model(config: PromotionConfig) -> nn.Module:
    """Return the network before any training, with weights that the recipe's seed decides."""
    seed_everything(config.recipe.seed)
    return build(config.architecture, num_classes=len(config.classes), image_size=IMAGENET_SIZE)


def make_loader(
    config: PromotionConfig, images: Images, sharding: BatchSharding, device: torch.device
) -> Loader:
    """Return the loader that is asked for; on a CPU that trains, one process at most loads."""
    cores = config.capacity.threads
    loading = cores if device.type == "cuda" else min(1, cores - 1)
    if config.loader == "dali":
        return DaliLoader(images, config.recipe, sharding, max(1, loading), device)
    return TorchvisionLoader(
        images, config.recipe, sharding, loading, skip_broken=config.skip_broken
    )


def make_trainer(
    config: PromotionConfig,
    images: Images,
    loader: Loader,
    sharding: BatchSharding,
    device: torch.device,
    *,
    compiled: bool = False,
) -> Trainer:
    """Build the network, the same in every worker, and its trainer."""
    if config.study is not None:
        import_modules(config.study.space.imports, config.study.space.imports_from)
    if device.type == "cpu":
        torch.set_num_threads(config.capacity.threads)
        keep_freed_memory()
    torch.backends.cudnn.benchmark = True
    backbone = config.architecture.backbone
    precision = resolve_precision(
        config.recipe.precision,
        backbone,
        make=lambda: make_model(replace(config, architecture=Architecture.plain(backbone))),
        batch_size=sharding.per_device_batch,
        image_size=config.recipe.train_crop,
        device=device,
        folder=config.checkpoints,
    )
    model = make_model(config)
    if config.pretrained is not None:
        load_pretrained(model, config.pretrained)
    if config.recipe.sync_batch_norm:
        model = synchronised(model, sharding.world, device)
    source = ImageSource(
        loader,
        config.recipe,
        sharding,
        images=len(images.train),
        num_classes=len(config.classes),
        device=device,
    )
    return Trainer(
        model,
        config.recipe.model_copy(update={"precision": precision}),
        source,
        identity=config.identity,
        device=device,
        ema_decay=config.recipe.ema_decay,
        compiled=compiled,
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
