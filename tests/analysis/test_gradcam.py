from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F

from afi_search.analysis.gradcam import grad_cam
from afi_search.errors import UserError
from afi_search.nn import Stage, build
from afi_search.space import Architecture
from tests.typed import part

TEXTS = [
    "resnet20",
    "resnet20(base-r4, B-r4-se-shared, B-r4)",
    "mobilenetv2(B-r16)",
    "shufflenetv2",
]


@pytest.mark.parametrize("text", TEXTS)
def test_maps_are_those_of_the_definition(text):
    torch.manual_seed(0)
    model = build(Architecture.parse(text), num_classes=10, image_size=32).eval()
    images, classes = torch.randn(3, 3, 32, 32), torch.tensor([1, 7, 7])

    looks = grad_cam(model, images, classes)

    outputs = []
    stage = [module for module in model.modules() if isinstance(module, Stage)][-1]
    handle = stage.register_forward_hook(lambda _stage, _inputs, output: outputs.append(output))
    logits = model(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), outputs[0])
    coarse = (gradient.mean((2, 3), keepdim=True) * outputs[0]).sum(1, keepdim=True).relu()
    fine = F.interpolate(coarse, (32, 32), mode="bilinear", align_corners=False)[:, 0]
    expected = fine / fine.amax((1, 2), keepdim=True).clamp(min=1e-30)
    torch.testing.assert_close(looks.maps, expected.detach())
    assert torch.equal(looks.predicted, logits.argmax(1))
    torch.testing.assert_close(looks.probability, logits.softmax(1).amax(1).detach())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_captum_the_person_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    model = build(Architecture.parse("resnet20"), num_classes=10, image_size=32).eval()
    with pytest.raises(UserError, match=r"pip install 'afi-search\[analysis\]'"):
        grad_cam(model, torch.randn(1, 3, 32, 32), torch.tensor([0]))


def test_an_image_in_which_nothing_speaks_for_the_class_has_an_empty_map():
    model = build(Architecture.parse("resnet20"), num_classes=10, image_size=32).eval()
    with torch.no_grad():
        part(model, "fc", torch.nn.Linear).weight.fill_(-1.0)
    looks = grad_cam(model, torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    assert torch.equal(looks.maps, torch.zeros(2, 32, 32))
