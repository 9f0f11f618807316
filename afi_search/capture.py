"""A training or evaluation step as one CUDA graph: the device no longer waits for Python.

At small batches eager PyTorch is bound by launching kernels, a thousand and more a step. A graph
launches them at once. It repeats the same kernels on the same memory, so what a step reads and
changes (weights, statistics, momentum, learning rate) are tensors that stay where they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache

import torch
from filelock import FileLock
from platformdirs import user_cache_path
from torch import Tensor

Step = Callable[..., None]
"""Takes tensors of a fixed shape and changes others in place; never waits for the device."""

WARM_UP = 3
"""Steps before the capture, in which libraries choose their kernels and make their workspaces."""


_PATIENCE = 300
"""Seconds that a process waits for the others' compilers."""


class CaptureWarning(UserWarning):
    """A step could not be captured and runs eagerly."""


def captured(step: Step, inputs: Sequence[Tensor], changed: Sequence[Tensor]) -> Step:
    """Return a function that does what `step` does, by a CUDA graph, or `step` where that fails.

    A failure, whatever it is, gives one CaptureWarning. In either case no tensor has changed on
    return, and the process is on the stream it was on. Graphs keep no tensor of autograd's alive,
    and failures none at all.

    Args:
        step: to capture.
        inputs: example arguments, for their shapes; they are copied.
        changed: every tensor that it changes; those that are made in the first step must exist.

    >>> total = torch.zeros(2, device="cuda")                                    # doctest: +SKIP
    >>> add = captured(total.add_, [torch.ones(2, device="cuda")], [total])      # doctest: +SKIP
    """
    static = [tensor.detach().clone() for tensor in inputs]
    before = [tensor.detach().clone() for tensor in changed]
    device = inputs[0].device
    random = None
    if device.type == "cuda":
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        random = generator.clone_state()
    try:
        graph = _capture(step, static)
    except Exception as error:
        if random is not None:  # In the state at hand torch 2.11 believes that it is captured.
            generator.graphsafe_set_state(random)
        warnings.warn(
            f"the step could not be captured as a CUDA graph and runs eagerly: {_reason(error)}",
            CaptureWarning,
            stacklevel=2,
        )
        return step
    finally:
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)

    if random is not None:
        generator.set_state(random.get_state())

    def replay(*given: Tensor) -> None:
        for tensor, value in zip(static, given, strict=True):
            tensor.copy_(value)
        graph.replay()

    return replay


def _capture(step: Step, inputs: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
    device, pool = torch.cuda.current_device(), torch.cuda.graph_pool_handle()
    graph, aside = torch.cuda.CUDAGraph(), _aside(device)
    aside.wait_stream(torch.cuda.current_stream())
    # Other threads, such as one that pins memory, may go on meanwhile.
    capture = torch.cuda.graph(graph, pool, aside, capture_error_mode="thread_local")
    try:
        with torch.cuda.stream(aside):  # left also where a failed capture does not leave its own
            with compiling_alone():
                step(*inputs)
            for _ in range(WARM_UP - 1):
                step(*inputs)
            _clear_workspaces()
            with capture:
                step(*inputs)
    except Exception:
        with suppress(RuntimeError):  # There was no capture, or torch after 2.11 has seen to it.
            torch._C._cuda_endAllocateToPool(device, pool)
            torch._C._cuda_releasePool(device, pool)
        raise
    finally:
        _clear_workspaces()
    torch.cuda.current_stream().wait_stream(aside)
    return graph


@contextmanager
def compiling_alone() -> Iterator[None]:
    """Within it, no other process of this machine is: what one has compiled, the next ones find.

    Where no lock can be had, or not for minutes, it is done without.
    """
    folder = user_cache_path("afi_search")
    lock = FileLock(folder / "compiling.lock", timeout=_PATIENCE)
    with suppress(OSError, NotImplementedError):  # a Timeout is an OSError
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _reason(error: Exception) -> str:
    """Return in a line what ended the capture, and not that it had to end.

    In a function of its own: a variable with the error would be part of its own traceback, a circle
    that keeps all tensors of all its frames until the garbage is collected.
    """
    cause = error.__context__ or error
    return (str(cause).splitlines() or [""])[0] or type(cause).__name__


@cache
def _aside(device: int) -> torch.cuda.Stream:
    """Return the stream of all captures: cuBLAS keeps a workspace for every stream it has seen."""
    return torch.cuda.Stream(device)


def _clear_workspaces() -> None:
    """Let go of cuBLAS's workspaces, so that a graph has one of its own, which goes with it."""
    torch._C._cuda_clearCublasWorkspaces()
