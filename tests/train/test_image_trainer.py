from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from afi_search.data.image_folder import list_images
from afi_search.data.image_loader import ImageSource, Loader, TorchvisionLoader, share_out
from afi_search.data.source import Batch, BatchSharding
from afi_search.model.from_checkpoint import promoted_model, with_shared_names
from afi_search.nn import build
from afi_search.space import Architecture
from afi_search.space.recipe import ImageNetRecipe
from afi_search.train import (
    CheckpointMismatch,
    DivergedError,
    Trainer,
    load,
    save,
    seed_everything,
)
from afi_search.train.trainer import synchronised
from tests.typed import part

SMALL: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 12,
    "train_crop": 16,
    "eval_resize": 16,
    "eval_crop": 16,
    "precision": "fp32",
    "images_per_device": 6,
    "lr": 0.2 * 12 / 256,
    "mixup": 0.2,
    "cutmix": 1.0,
    "ema_decay": 0.9,
    "augment": "trivial",
}


NEW_NAMES = ("lr", "warmup", "drops_at")


def tiny_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def image_trainer(
    model: nn.Module,
    how: ImageNetRecipe,
    loader: Loader,
    sharding: BatchSharding,
    images: int,
    classes: int = 3,
    **identity: Any,
) -> Trainer:
    source = ImageSource(
        loader, how, sharding, images=images, num_classes=classes, device=torch.device("cpu")
    )
    return Trainer(
        model,
        how,
        source,
        identity=identity,
        device=torch.device("cpu"),
        ema_decay=how.ema_decay,
    )


def trainer_for(folder: Path, **changes: Any) -> Trainer:
    recipe = ImageNetRecipe.model_validate({**SMALL, **changes})
    images = list_images(folder)
    sharding = share_out(recipe.batch_size, recipe.images_per_device, 0, 1)
    seed_everything(recipe.seed)
    return image_trainer(
        tiny_network(),
        recipe,
        TorchvisionLoader(images, recipe, sharding, 0),
        sharding,
        len(images.train),
        recipe=recipe.model_dump(mode="json", exclude={"images_per_device"}),
    )


def test_a_training_that_was_cut_off_ends_bit_for_bit_as_one_that_was_not(
    pictures: Path, tmp_path: Path
) -> None:
    whole = trainer_for(pictures)
    while not whole.done:
        whole.run_epoch()

    broken = trainer_for(pictures)
    for _ in range(SMALL["epochs"]):
        broken.run_epoch()
        save(broken.state_dict(), str(tmp_path / "checkpoints"))
        broken = trainer_for(pictures)
        torch.manual_seed(99)
        broken.load_state_dict(load(str(tmp_path / "checkpoints")) or {})

    assert broken.done
    for got, expected in (
        (broken.model, whole.model),
        (broken.averaged, whole.averaged),
    ):
        for name, tensor in expected.state_dict().items():
            assert torch.equal(got.state_dict()[name], tensor), name
    untimed = {"seconds", "images_per_second"}
    assert [{k: v for k, v in vars(e).items() if k not in untimed} for e in broken.history] == [
        {k: v for k, v in vars(e).items() if k not in untimed} for e in whole.history
    ]


class Fixed:
    """A loader of the same images every epoch."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, size: int) -> None:
        self.left_out: dict[str, str] = {}
        self._batches = list(zip(images.split(size), labels.split(size), strict=True))

    def train(self, epoch: int) -> Iterator[Batch]:
        yield from self._batches

    def validation(self) -> Iterator[Batch]:
        yield from self._batches


def plain_trainer(model: nn.Module, size: int, rounds: int, **changes: Any) -> Trainer:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(24) % 3
    recipe = ImageNetRecipe.model_validate(
        {"epochs": 2, "batch_size": size * rounds, "precision": "fp32", **changes}
    )
    sharding = BatchSharding(0, 1, rounds, size)
    return image_trainer(model, recipe, Fixed(images, labels, size), sharding, 24)


def test_rounds_add_up_to_the_step_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    at_once = plain_trainer(copy.deepcopy(linear), 24, 1)
    in_rounds = plain_trainer(copy.deepcopy(linear), 6, 4)
    one, other = at_once.run_epoch(), in_rounds.run_epoch()

    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    for a, b in zip(at_once.model.parameters(), in_rounds.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
        assert a.abs().sum() > 0


def test_top_five_counts_the_five_highest() -> None:
    class Fifth(nn.Module):
        """Ranks the label fifth, or first."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            scores = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
            return scores.expand(len(images), 6) + self.weight

    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    recipe = ImageNetRecipe(epochs=1, batch_size=4)
    loader = Fixed(images, torch.tensor([0, 4, 4, 5]), 4)
    epoch = image_trainer(Fifth(), recipe, loader, BatchSharding(0, 1, 1, 4), 4, 6).run_epoch()

    assert (epoch.accuracy, epoch.top5) == (0.25, 0.75)


def test_the_average_of_the_weights_lags_behind_them(pictures: Path) -> None:
    trainer = trainer_for(pictures, ema_decay=0.99)
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.run_epoch()

    assert trainer.averaged is not trainer.model
    for name, parameter in trainer.model.named_parameters():
        moved = (parameter - before[name]).norm()
        averaged = (trainer.averaged.get_parameter(name) - before[name]).norm()
        assert averaged <= moved + 1e-7
    assert trainer_for(pictures, ema_decay=None).averaged is not None


def test_another_training_is_not_gone_on_with(pictures: Path) -> None:
    state = trainer_for(pictures).state_dict()
    with pytest.raises(CheckpointMismatch, match="is of another training"):
        trainer_for(pictures, weight_decay=0.5).load_state_dict(state)
    trainer_for(pictures, images_per_device=2).load_state_dict(state)


def test_a_loss_that_is_no_number_ends_it() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    nn.init.constant_(part(linear, "1", nn.Linear).weight, float("nan"))
    with pytest.raises(DivergedError, match="nan at epoch 1"):
        plain_trainer(linear, 24, 1).run_epoch()


def test_batch_norms_are_synchronised_between_gpus_and_keep_their_weights() -> None:
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    names = list(tiny_network().state_dict())
    converted = synchronised(tiny_network(), 2, gpu)

    assert [type(module) for module in converted.modules()].count(nn.SyncBatchNorm) == 1
    assert list(converted.state_dict()) == names
    for world, device in ((1, gpu), (2, cpu)):
        left = synchronised(tiny_network(), world, device)
        assert not any(isinstance(module, nn.SyncBatchNorm) for module in left.modules())


def test_bf16_trains_and_keeps_the_weights_in_full(pictures: Path) -> None:
    trainer = trainer_for(pictures, precision="bf16")
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    full = trainer_for(pictures)
    losses = trainer.run_epoch().loss, full.run_epoch().loss

    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    for name, parameter in trainer.model.named_parameters():
        assert parameter.dtype == torch.float32
        assert not torch.equal(parameter, before[name])


def train_part(rank: int, world: int, folder: Path, store: Path) -> None:
    """Train two epochs without batch norms as one of `world` processes; the first one saves."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    images = list_images(folder)
    recipe = ImageNetRecipe.model_validate({**SMALL, "mixup": 0, "cutmix": 0})
    sharding = share_out(recipe.batch_size, 3, rank, world)
    assert sharding.accumulation_steps == 4 // world
    seed_everything(recipe.seed)
    trainer = image_trainer(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)),
        recipe,
        TorchvisionLoader(images, recipe, sharding, 0),
        sharding,
        len(images.train),
    )
    trainer.run_epoch()
    trainer.run_epoch()
    if rank == 0:
        save(trainer.state_dict(), str(folder / f"of-{world}"))
    if world > 1:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_in_rounds_train_as_one_does(pictures: Path, tmp_path: Path) -> None:
    train_part(0, 1, pictures, tmp_path / "store")
    spawn(train_part, (2, pictures, tmp_path / "store"), nprocs=2)
    one, two = (load(str(pictures / f"of-{world}")) for world in (1, 2))

    assert one is not None and two is not None
    for kept in ("model", "ema"):
        for name, tensor in one[kept].items():
            assert torch.allclose(two[kept][name], tensor, atol=1e-5), name
    for alone, shared in zip(one["history"], two["history"], strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert (shared["accuracy"], shared["top5"]) == (alone["accuracy"], alone["top5"])
        assert (alone["workers"], shared["workers"]) == (1, 2)


def test_what_is_promoted_is_the_average_with_its_facts() -> None:
    architecture = Architecture.parse("resnet50(base-r4)")
    recipe = ImageNetRecipe(epochs=2, ema_decay=0.9)
    model, average = (build(architecture, num_classes=2, image_size=224) for _ in range(2))
    epoch = {"epoch": 2, "accuracy": 0.5, "top5": 0.75, "loss": 1.0, "workers": 4}
    state = {
        "epoch": 2,
        "identity": {
            "architecture": architecture.text,
            "recipe": recipe.model_dump(mode="json", exclude={"images_per_device"}),
            "classes": ["cat", "dog"],
            "train_images": 20,
        },
        "model": model.state_dict(),
        "ema": average.state_dict(),
        "history": [{**epoch, "workers": 2}, epoch],
        "origin": {"study": "s", "images left out": 3},
    }
    promoted = promoted_model(state, {"torch": "2"})

    assert promoted.architecture == architecture
    assert promoted.facts.classes == ("cat", "dog")
    assert promoted.facts.metrics == {"validation top-1": 0.5, "validation top-5": 0.75}
    assert promoted.facts.training["workers by epoch"] == [2, 4]
    assert promoted.facts.training["study"] == "s"
    assert promoted.facts.training["images left out"] == 3
    assert promoted.facts.training["facts"] == {"torch": "2"}
    weight = promoted.module.state_dict()["fc.weight"]
    assert torch.equal(weight, average.state_dict()["fc.weight"])
    assert not torch.equal(weight, model.state_dict()["fc.weight"])


def test_a_promotion_from_before_recipes_shared_names_goes_on(pictures: Path) -> None:
    trainer = trainer_for(pictures, warmup="1/3", drops_at=["2/3", 1.0])
    trainer.run_epoch()
    state = trainer.state_dict()
    recipe = {k: v for k, v in state["identity"]["recipe"].items() if k not in NEW_NAMES}
    recipe |= {"lr_per_256": 0.2, "warmup_epochs": 1.0, "drops_at_epochs": [2.0, 60.0]}
    epoch = {("top1" if k == "accuracy" else k): v for k, v in state["history"][0].items()}
    kept = ("epoch", "model", "ema", "optimiser")
    old = {k: state[k] for k in kept} | {"identity": {"recipe": recipe}, "history": [epoch]}

    goes_on = trainer_for(pictures, warmup="1/3", drops_at=["2/3", 1.0])
    goes_on.load_state_dict(with_shared_names(copy.deepcopy(old)))
    assert goes_on.history == trainer.history
    trainer.run_epoch()
    goes_on.run_epoch()
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(goes_on.model.state_dict()[name], tensor), name
    assert with_shared_names(state) is state
