"""Networks and batch norms on a device's kernels, against plain torch in float64.

All is drawn on the CPU, once: a GPU's generator draws other numbers in another dtype.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from afi_search.nn import build
from afi_search.nn.ops.batch_norm import BatchNorm2d
from afi_search.nn.ops.common import at_least_float32, plain

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.float32}
ERRORS = {"fp64": 1e-8, "fp32": 1e-3, "bf16": 0.1}
"""What the norm of a difference may be, of the norm of what is wanted."""
ABOVE_ZERO = 3.0
"""Bias of batch norms in fp32, so that hardly a unit is so close to zero that rounding puts it on
the other side of its ReLU: a few of them change gradients by up to 2e-2, in plain torch on a CPU as
well, where logits differ by 1e-5. With it that reaches 4e-4. In fp64 biases are zero."""
ZERO = 1e-3
"""Of the largest norm, that of a gradient which is zero but for rounding."""


def outcome(model: nn.Module, images: Tensor, precision: str) -> dict[str, Tensor]:
    """Return logits, gradients and buffers after a training step, and logits of an evaluation."""
    narrow = precision == "bf16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=narrow):
        logits = model.train()(images)
    logits.double().square().mean().backward()
    found = {"logits": logits}
    found |= {name: parameter.grad for name, parameter in model.named_parameters()}
    found |= dict(model.named_buffers())
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=narrow):
        found["evaluated"] = model.eval()(images)
    return {name: value.detach().double().cpu() for name, value in found.items()}


def compare(text: str, precision: str, device: str, size: int = 32) -> None:
    """Check a network's numbers on a device against those of plain torch in float64 on the CPU.

    In bf16 only the logits, which rounding changes less than the gradients of deep layers.
    """
    torch.manual_seed(0)
    exact = build(text, num_classes=10, image_size=size).double()
    with torch.no_grad():
        for name, parameter in exact.named_parameters():
            if "afi." in name:
                parameter.mul_(4)  # so that weights differ
        for module in exact.modules():
            if precision == "fp32" and isinstance(module, nn.BatchNorm2d):
                module.bias.fill_(ABOVE_ZERO)
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    ours = copy.deepcopy(exact).to(device, DTYPES[precision])
    ours = ours.to(memory_format=torch.channels_last)
    given = images.to(device, DTYPES[precision], memory_format=torch.channels_last)

    with plain():
        wanted = outcome(exact, images, "fp64")
    torch.backends.cuda.matmul.allow_tf32 = False  # nor do Triton's kernels multiply matrices
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found = outcome(ours, given, precision)
    largest = max(wanted[name].norm() for name, _ in exact.named_parameters())

    strays = []
    for name, value in wanted.items():
        if precision == "bf16" and name != "logits":
            continue
        most = ERRORS[precision]
        share = float((found[name] - value).norm() / (ZERO * largest + value.norm()))
        strays.append((share / most, f"{name}: {share:.2g}, at most {most:g}"))
    strays.sort(reverse=True)
    assert strays[0][0] <= 1, "\n".join([f"{text} in {precision}", *(of for _, of in strays[:20])])


def normed(
    x: Tensor, skip: Tensor | None, cotangent: Tensor, weight: Tensor, ceiling: float | None
) -> tuple[Tensor, ...]:
    norm = BatchNorm2d(x.shape[1]).to(x.device, at_least_float32(x.dtype))
    with torch.no_grad():
        norm.weight.copy_(weight)
    given = [x.clone().requires_grad_(), *([] if skip is None else [skip.clone().requires_grad_()])]
    y = norm(given[0], ceiling, *given[1:])
    gradients = torch.autograd.grad(y, [*given, norm.weight, norm.bias], cotangent)
    return (y.detach(), *gradients, norm.running_mean, norm.running_var)


def compare_batch_norm(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    ceiling: float | None,
    with_skip: bool,
    device: str,
    times: int,
) -> None:
    """Check what a batch norm computes in training, and that it does so each time."""
    x, skip, cotangent = (
        torch.randn(shape).to(device, dtype, memory_format=torch.channels_last) for _ in range(3)
    )
    weight = torch.empty(shape[1]).uniform_(-2, 2)
    given = 3 * x + 5, skip if with_skip else None, cotangent

    first = normed(*given, weight, ceiling)

    with plain():
        wide = None if given[1] is None else given[1].double()
        wanted = normed(given[0].double(), wide, given[2].double(), weight, ceiling)
    for one, other in zip(first, wanted, strict=True):
        error = (one.double() - other).norm() / other.norm()
        assert error <= (0.02 if dtype == torch.bfloat16 else 1e-3)
    for _ in range(times):
        for one, other in zip(normed(*given, weight, ceiling), first, strict=True):
            assert torch.equal(one, other)
