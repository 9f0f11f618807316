"""Runs the product's steps on a GPU; prints what was seen, a JSON line each.

Started by test_rehearsal.py. With the runtime of this folder preloaded there is no GPU: a
convolution, whose cuDNN plans need a device, is an empty tensor in the memory format that PyTorch
would choose, and Triton's kernels, which take seconds each to compile, are noted where they would
be launched. Everything else is PyTorch's own CUDA code down to the launch of each kernel, which
then does nothing. So no value means anything.
"""

# mypy: disable-error-code="attr-defined, assignment"
from __future__ import annotations

import collections
import ctypes
import gc
import json
import os
import sys
import warnings
from contextlib import contextmanager, nullcontext
from functools import partialmethod
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils import _pytree as pytree
from triton.runtime.jit import JITFunction

import afi_search.data.tensor_source as tensor_source
import afi_search.train.evaluation as evaluation_module
import afi_search.train.trainer as trainer_module
from afi_search.cost import SpaceCosts
from afi_search.cost.latency import time_stages
from afi_search.data import ImageSet, Split, dataset_spec
from afi_search.data.image_loader import ImageSource
from afi_search.data.source import BatchSharding
from afi_search.nn import build
from afi_search.nn.ops.common import plain
from afi_search.space import Architecture, Recipe, Space, SpaceFile
from afi_search.space.recipe import read_recipe
from afi_search.train import Trainer, seed_everything, trial_trainer
from afi_search.train.supernet import InheritedAccuracy, supernet_trainer

MOCK = ctypes.CDLL(None)
REHEARSED = hasattr(MOCK, "mock_note")
BATCH, TEST_BATCH, DEVICE = 64, 100, torch.device("cuda")
relaid: collections.Counter[str] = collections.Counter()


def note(name):
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    if MOCK.mock_note(stream, name.encode()):
        raise RuntimeError(f"{name}: refused by the capture")


def lies_last(x):
    """c10's is_channels_last_strides_2d, by which PyTorch chooses cuDNN's memory format."""
    least = 0
    if x.dim() != 4 or x.stride(1) == 0:
        return False
    for d in (1, 3, 2, 0):
        if x.size(d) == 0 or x.stride(d) < least or (d == 0 and least == x.stride(1)):
            return False
        least = x.stride(d) * max(1, x.size(d)) if x.size(d) > 1 else x.stride(d)
    return True


def ready(x, layout, what):
    if layout == torch.channels_last and x.stride(1) != 1 and x.shape[1] > 3:
        relaid[f"{what} {tuple(x.shape[1:])}"] += 1
    return x.contiguous(memory_format=layout)


def convolution(x, w, b, stride, padding, dilation, transposed, output_padding, groups):
    sizes = [
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1
        for i in range(x.dim() - 2)
    ]
    layout = torch.channels_last if lies_last(x) or lies_last(w) else torch.contiguous_format
    ready(x, layout, "convolution")
    note("convolution")
    shape = (x.shape[0], w.shape[0], *sizes)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    return y if b is None else y.add_(b.view(1, -1, *(1 for _ in sizes)))


def convolution_backward(
    g, x, w, bias, stride, padding, dilation, transposed, output_padding, groups, mask
):
    layout = torch.channels_last if lies_last(x) or lies_last(w) else torch.contiguous_format
    ready(g, layout, "convolution's gradient")
    ready(x, layout, "convolution, backward")
    made = []
    for wanted, like in zip(mask, (x, w), strict=False):
        if wanted:
            note("convolution backward")
        made.append(torch.empty_like(like, memory_format=layout) if wanted else None)
    return *made, g.sum((0, *range(2, g.dim()))) if mask[2] else None


def launch(kernel, *arguments, **_):
    """Take a Triton kernel's launch; its features all lie alike."""
    features = [x for x in pytree.tree_leaves(arguments) if torch.is_tensor(x) and x.dim() == 4]
    assert all(x.is_cuda for x in features)
    if len({x.stride(1) == 1 for x in features if x.shape[1] > 1}) > 1:
        relaid[f"{kernel.__name__} {tuple(features[0].shape[1:])}"] += 1
    note(f"triton {kernel.__name__}")


def talk(tensor, **_):
    """Take the place of a message to the other processes, which wait for all of them."""
    assert not torch.cuda.is_current_stream_capturing()


def build_optimiser(model, recipe, rate):
    """As it is; but SGD looks at its first rate, and no value means anything here."""
    no_rate: Any = 0.0
    optimiser = made_optimiser(model, recipe, no_rate)
    for group in optimiser.param_groups:
        group["lr"] = rate
    return optimiser


made_optimiser = trainer_module.build_optimiser


@contextmanager
def listening():
    """Yield a list of the warnings of captures."""
    told: list[Any] = []
    with warnings.catch_warnings(record=True) as all_of_them:
        warnings.simplefilter("always")
        yield told
    told += [str(of.message)[:300] for of in all_of_them if "captur" in str(of.message)]


def made_up(count):
    pixels = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 100)


def trainer(text, precision):
    seed_everything(0)
    model = build(Architecture.parse(text), num_classes=100, image_size=32)
    data = Split(dataset_spec("cifar100"), made_up(2 * BATCH), made_up(2 * TEST_BATCH + 7))
    recipe = Recipe(
        epochs=3,
        batch_size=BATCH,
        precision=precision,
        nesterov=True,
        label_smoothing=0.1,
        weight_decay_on_norm=False,
    )
    return trial_trainer(model, recipe, data, seed=0, device=DEVICE)


def forbidden():
    return MOCK.mock_violations() if REHEARSED else 0


def is_captured(step):
    return step is not None and "replay" in step.__qualname__


def tell(**facts):
    print(json.dumps(facts), flush=True)


def rehearse(text, precision):
    """An epoch, a resumption and another epoch."""
    relaid.clear()
    before = forbidden()
    with listening() as told:
        training = trainer(text, precision)
        training.run_epoch()
        training.load_state_dict(training.state_dict())
        training.run_epoch()
    tell(
        text=text,
        precision=precision,
        captured=is_captured(training._replay),
        evaluation=is_captured(training._evaluate._replay),
        forbidden=forbidden() - before,
        relaid=dict(relaid),
        warnings=told,
    )


def memory():
    """What trials leave on the device, one after another as in a worker; captures of some fail."""
    held = []
    for number in range(6):
        with broken_captures() if number in (1, 2) else nullcontext(), listening():
            training = trainer("resnet20(base-r4)", "bf16")
            training.run_epoch()
        del training
        gc.collect()
        torch.cuda.empty_cache()
        held.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    tell(text="memory", held=held)


@contextmanager
def broken_captures():
    """Within it, a step waits for the device while it is captured."""
    backward = Trainer._backward

    def look(self, batches):
        backward(self, batches)
        if torch.cuda.is_current_stream_capturing():
            self._loss_sum.item()

    Trainer._backward = look
    try:
        yield
    finally:
        Trainer._backward = backward


def failing():
    """A step that cannot be captured, then one that can."""
    with broken_captures(), listening() as told:
        trainer("resnet20(base-r4)", "bf16").run_epoch()
    stayed = torch.cuda.current_stream() == torch.cuda.default_stream()
    training = trainer("resnet20(base-r4)", "bf16")
    training.run_epoch()
    tell(
        text="failing",
        warnings=told,
        stayed=stayed,
        next_captured=is_captured(training._replay),
    )


class Batches:
    """A loader of batches as torchvision's makes them."""

    left_out: dict[str, str] = {}

    def train(self, epoch):
        for _ in range(3):
            pixels = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)
            yield pixels.pin_memory(), torch.arange(8).pin_memory()

    validation = partialmethod(train, 0)


def promotion():
    """Whether a promotion's epoch waits for the device, but for its loss and accuracy."""
    for name, world in (("paper", 1), ("modern", 1), ("paper", 2))[: 3 if REHEARSED else 2]:
        recipe = read_recipe(name).model_copy(update={"precision": "bf16", "epochs": 3})
        sharding = BatchSharding(0, world, 1, 8)
        source = ImageSource(Batches(), recipe, sharding, images=24, num_classes=100, device=DEVICE)
        model = build(Architecture.parse("resnet50(base-r4)"), num_classes=100, image_size=224)
        training = Trainer(
            model, recipe, source, identity={}, device=DEVICE, ema_decay=recipe.ema_decay
        )
        with listening() as told:
            training.run_epoch()
        batches = source.epoch(1)
        waited = waits(lambda training=training, batches=batches: training.step(3, [next(batches)]))
        captured = is_captured(training._replay)
        who = f"promotion {name} {world}"
        tell(text=who, waits=waited, captured=captured, warnings=told)


def latency():
    """How the latency objective times a GPU."""
    with listening() as told:
        parts = time_stages(
            Architecture.parse("resnet20(base-r4)"),
            num_classes=100,
            image_size=32,
            device=DEVICE,
            batch_size=8,
        )
    tell(text="latency", warnings=told, stages=len(parts.stages), whole=parts.whole.latency)


def kernels():
    """How many kernels a training step launches."""
    training = trainer("resnet32(base-r4)", "bf16")
    training.model.train()
    parts = next(iter(training._source.epoch(0)))

    def step():
        training._backward([training._source.batch(*parts)])
        training._descend()

    tell(text="kernels", count=launches(step))


def supernet():
    """What a supernet's step and an architecture's score launch, and where they wait."""
    one = Architecture.parse("resnet32(base-r4)")
    choices = {"choice": ["off", "base-r4", "B-r4", "B-r4-se"]}
    file = SpaceFile.model_validate({"backbone": "resnet32", "stages": {"all": choices}})
    recipe = Recipe(epochs=3, batch_size=BATCH, precision="bf16")
    data = Split(dataset_spec("cifar100"), made_up(2 * BATCH), made_up(2 * TEST_BATCH + 7))
    costs = SpaceCosts(Space(file), num_classes=100, image_size=32)
    training = supernet_trainer(file, costs.table, one, recipe, data, seed=0, device=DEVICE)
    training.run_epoch()
    net, parts = training.net, next(iter(training._source.epoch(1)))
    inherited = InheritedAccuracy(net, data, precision="bf16", device=DEVICE)
    alone = trial_trainer(net.extract(one), recipe, data, seed=0, device=DEVICE)
    alone._captures = False

    def step(of):
        of._backward([of._source.batch(*parts)])
        of._descend()

    def pass_through(model):
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            model.eval()(inherited._validation[0][0])

    def both():
        training.step(0, [parts])
        inherited(one)

    waited = waits(both)
    training._drawn = [one]
    tell(
        text="supernet",
        waits=waited,
        step=launches(plain()(lambda: step(training))),
        step_alone=launches(plain()(lambda: step(alone))),
        score=launches(lambda: inherited(one)),
        pass_alone=launches(lambda: pass_through(alone.model)),
    )


def waits(do):
    """Return where something waits for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        do()
    torch.cuda.set_sync_debug_mode("default")
    return [f"{of.filename}:{of.lineno}" for of in told if "called a synch" in str(of.message)]


def launches(do):
    """Return how many kernels something launches, the second time."""
    for _ in range(2):
        MOCK.mock_record(1)
        do()
    return MOCK.mock_launches()


EXTRAS = {
    "supernet": supernet,
    "kernels": kernels,
    "memory": memory,
    "failing": failing,
    "promotion": promotion,
    "latency": latency,
}


def stand_in(triton):
    """Take the place of what only a device can do; the triton kernels too where they are not."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("convolution", convolution, "CUDA")
    library.impl("convolution_backward", convolution_backward, "CUDA")
    trainer_module.build_optimiser = build_optimiser
    Trainer._require_finite = lambda *_: None
    trainer_module.dist = SimpleNamespace(all_reduce=talk, broadcast=talk)
    evaluation_module.dist = trainer_module.dist
    torch.Tensor.tolist = lambda x: [1] * x.shape[0]  # the images that an evaluation has counted
    if not triton:
        JITFunction.run = launch
    return library


def main(wanted):
    tensor_source.DEVICE_BATCH = TEST_BATCH
    kept = stand_in(wanted["triton"]) if REHEARSED else None
    for text, precision in wanted["steps"]:
        rehearse(text, precision)
    for extra in wanted["extras"]:
        EXTRAS[extra]()
    del kept


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
    # The autograd thread may still let go of the last graph, for which it needs Python: an
    # interpreter that ends meanwhile ends the thread, and C++ calls that a terminate().
    os._exit(0)
