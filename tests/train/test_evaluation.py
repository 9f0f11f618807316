from __future__ import annotations

import torch
from torch import nn

from afi_search.data import ImageSet
from afi_search.data.tensor_source import Normalise, normalised_batches
from afi_search.train import Evaluator

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def images(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.randint(0, 4, (count,), generator=generator))


def run(net: nn.Module, data: ImageSet, batch_size: int | None = None):
    cpu = torch.device("cpu")
    evaluate = Evaluator(net, device=cpu, precision="fp32")
    return evaluate(normalised_batches(data, Normalise(MEAN, STD, cpu), batch_size))


def test_accuracies_are_those_of_a_float64_pass_over_all_images():
    net, data = model(), images(37)

    found = run(net, data, batch_size=10)

    x = data.images.permute(0, 3, 1, 2).double() / 255
    x = (x - torch.tensor(MEAN).double().view(3, 1, 1)) / torch.tensor(STD).double().view(3, 1, 1)
    logits = net.double().eval()(x)
    assert found.accuracy == (logits.argmax(1) == data.labels).double().mean().item()


def test_nothing_of_the_model_changes():
    net = model().train()
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}

    run(net, images(12))

    assert net.training and net[0].training and not net[1].training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_batch_size_does_not_matter():
    net, data = model(), images(23)

    assert run(net, data, batch_size=5).accuracy == run(net, data, batch_size=23).accuracy
