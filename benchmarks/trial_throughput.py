"""A trial, ours beside the loop that people copy: images per second, and seconds to the result.

    python -m benchmarks.trial_throughput                               a GPU, all images
    python -m benchmarks.trial_throughput --images 1024 --threads 1     a CPU

The copied loop is a DataLoader over PIL images with torchvision's transforms (crop, mirror, tensor,
normalise), batches moved one by one, an eager step, and `loss.item()` after each. All contenders
train the same architecture by the same recipe on the same images, an epoch of each in turn, the
validation after it included in a trial's seconds. `loop` and `ours` compute in fp32; `loop at its
best` is in channels last and autocast to bf16 with two loader processes, `ours at its best` in the
precision that was measured to be faster. The loop's batch norms are torch's; its AFI is ours, or,
where it says `literal AFI`, as the equations read. Each has a process of its own; ours keeps freed
memory, as a trial's worker does. On one CPU thread the clock is CPU time, which leaves out the
loader's processes, in the loop's favour.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from afi_search.data import ImageSet, Split, load, split
from afi_search.nn import build
from afi_search.space import Architecture, Recipe
from afi_search.train import keep_freed_memory, resolve_precision, seed_everything, trial_trainer
from benchmarks.literal import Literal, with_torchs_norms
from benchmarks.rounds import against, best_device, facts, in_turn_apart, publish

LOOP, LITERAL = "loop", "loop, literal AFI"
BEST_LOOP, BEST_LITERAL = "loop at its best", "loop at its best, literal AFI"
OURS, BEST_OURS = "ours", "ours at its best"


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images as PIL pictures through transforms, as torchvision's data sets give them."""

    def __init__(self, images: ImageSet, transform: Callable[[Image.Image], Tensor]) -> None:
        self._pixels, self._labels = images.images.numpy(), images.labels.tolist()
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]


class Loop:
    """The copied loop.

    Args:
        workers: processes that load.
        narrow: whether the network is in channels last and autocast to bf16.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        data: Split,
        device: torch.device,
        *,
        workers: int = 0,
        narrow: bool = False,
    ) -> None:
        finish = [transforms.ToTensor(), transforms.Normalize(data.spec.mean, data.spec.std)]
        change = [transforms.RandomCrop(data.spec.image_size, padding=4)]
        change += [transforms.RandomHorizontalFlip()]
        options = {
            "batch_size": recipe.batch_size,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": device.type == "cuda",
        }
        self._device, self._narrow = device, narrow
        seen = Pictures(data.train, transforms.Compose([*change, *finish]))
        held = Pictures(data.validation, transforms.Compose(finish))
        self._train = DataLoader(seen, shuffle=True, drop_last=True, **options)
        self._held = DataLoader(held, **options)
        self._model = model.to(device)
        if narrow:
            self._model = self._model.to(memory_format=torch.channels_last)
        self._optimiser = torch.optim.SGD(
            model.parameters(), recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay
        )

    def run_epoch(self) -> float:
        """Train an epoch and return the accuracy on the images held out."""
        self._model.train()
        for images, labels in self._train:
            loss = F.cross_entropy(self._logits(images), labels.to(self._device))
            self._optimiser.zero_grad()
            torch.autograd.backward(loss)
            self._optimiser.step()
            loss.item()
        self._model.eval()
        right = 0
        with torch.no_grad():
            for images, labels in self._held:
                right += int((self._logits(images).argmax(1).cpu() == labels).sum())
        return right / len(self._held.dataset)  # type: ignore[arg-type]

    def _logits(self, images: Tensor) -> Tensor:
        images = images.to(self._device)
        if self._narrow:
            images = images.to(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._narrow):
            logits: Tensor = self._model(images)
        return logits.float()


def make_network(network: str, data: Split) -> nn.Module:
    """Return the architecture's network, the same for every contender."""
    seed_everything(0)
    parsed = Architecture.parse(network)
    return build(parsed, num_classes=data.spec.num_classes, image_size=data.spec.image_size)


def make_loop(
    network: str,
    recipe: Recipe,
    data: Split,
    device: torch.device,
    *,
    literal: bool = False,
    at_its_best: bool = False,
) -> Callable[[], object]:
    """Return what trains the loop's next epoch."""
    model = with_torchs_norms(make_network(network, data))
    if literal:
        model = Literal(model)
    workers = 2 if at_its_best else 0
    return Loop(model, recipe, data, device, workers=workers, narrow=at_its_best).run_epoch


def make_ours(
    network: str, recipe: Recipe, data: Split, device: torch.device
) -> Callable[[], object]:
    """Return what trains our next epoch, in a process that keeps memory as a worker's does."""
    keep_freed_memory()
    return trial_trainer(make_network(network, data), recipe, data, seed=0, device=device).run_epoch


def makers(
    network: str, recipe: Recipe, data: Split, device: torch.device
) -> dict[str, Callable[[], Callable[[], object]]]:
    """Return for each contender what makes it."""
    with tempfile.TemporaryDirectory() as folder:
        faster = resolve_precision(
            "auto",
            network,
            make=lambda: make_network(network, data),
            batch_size=recipe.batch_size,
            image_size=data.spec.image_size,
            device=device,
            folder=folder,
        )
    best = recipe.model_copy(update={"precision": faster})
    loop = partial(make_loop, network, recipe, data, device)
    return {
        LOOP: loop,
        LITERAL: partial(loop, literal=True),
        OURS: partial(make_ours, network, recipe, data, device),
        BEST_LOOP: partial(loop, at_its_best=True),
        BEST_LITERAL: partial(loop, literal=True, at_its_best=True),
        BEST_OURS: partial(make_ours, network, best, data, device),
    }


def main(
    network: Annotated[str, typer.Option(help="The architecture.")] = "resnet32(base-r4)",
    images: Annotated[int, typer.Option(help="Training images; 0 takes all.")] = 0,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    rounds: Annotated[int, typer.Option(help="Epochs of each.", min=2)] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's number.")] = 0,
    data_name: Annotated[str, typer.Option("--data", help="The data set.")] = "cifar100",
) -> None:
    """Time every contender and write results/trial_throughput.csv."""
    if threads:
        torch.set_num_threads(threads)
    device = best_device()
    few = images // 10 if images else None
    data = split(load(data_name), train_subset=images or None, validation_subset=few)
    recipe = Recipe(epochs=rounds + 1, batch_size=batch, precision="fp32")
    seconds = in_turn_apart(makers(network, recipe, data, device), rounds, device, warm_up=1)
    count = len(data.train)
    rows: list[dict[str, object]] = [
        {
            "contender": name,
            "network": network,
            "images_per_second": count / float(against(of, of)["median_s"]),
            **against(of, seconds[LOOP]),
            "speed_up": against(seconds[LOOP], of)["ratio"],
            "seconds_of_30_epochs": 30 * against(of, of)["median_s"],
            "images": count,
            "batch": batch,
            "rounds": rounds,
            **facts(device),
        }
        for name, of in seconds.items()
    ]
    columns = ["contender", "images_per_second", "seconds_of_30_epochs", "speed_up", "threads"]
    publish("trial_throughput", rows, columns)


if __name__ == "__main__":
    typer.run(main)
