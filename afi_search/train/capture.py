"""A training or evaluation step as one CUDA graph: the device no longer waits for Python.

At small batches eager PyTorch is bound by launching kernels, a thousand and more a step. A graph
launches them at once. It repeats the same kernels on the same memory, so what a step reads and
changes (weights, statistics, momentum, learning rate) are tensors that stay where they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Step = Callable[..., None]
"""Takes tensors of a fixed shape and changes others in place; never waits for the device."""

WARM_UP = 3
"""Steps before the capture, in which libraries choose their kernels and make their workspaces."""


class CaptureWarning(UserWarning):
    """A step could not be captured and runs eagerly."""


def captured(step: Step, inputs: Sequence[Tensor], changed: Sequence[Tensor]) -> Step:
    """Return a function that does what `step` does, by a CUDA graph, or `step` where that fails.

    A failure gives one CaptureWarning. In either case no tensor has changed on return.

    Args:
        step: to capture.
        inputs: example arguments, for their shapes; they are copied.
        changed: every tensor that it changes; those that are made in the first step must exist.
    """
    static = [tensor.clone() for tensor in inputs]
    before = [tensor.clone() for tensor in changed]
    device = inputs[0].device
    random = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        graph = _capture(step, static)
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(
            f"the step could not be captured as a CUDA graph and runs eagerly: {reason}",
            CaptureWarning,
            stacklevel=2,
        )
        return step
    finally:
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
        if random is not None:
            torch.cuda.set_rng_state(random, device)

    def replay(*given: Tensor) -> None:
        for tensor, value in zip(static, given, strict=True):
            tensor.copy_(value)
        graph.replay()

    return replay


def _capture(step: Step, inputs: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            step(*inputs)
    torch.cuda.current_stream().wait_stream(aside)
    with torch.cuda.graph(graph):
        step(*inputs)
    return graph
