"""A model for other runtimes: ONNX, checked in onnxruntime, and torch.export."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from afi_search.errors import UserError
from afi_search.model.model import EXPORTED, ONNX, Model

TOLERANCE = 1e-3
"""The largest difference of logits allowed, as a share of the largest logit."""
_CHECKED_BATCHES = (1, 3)


def demand_onnx() -> None:
    """Make sure that ONNX can be written and checked; a UserError says what is not installed."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at its import
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  torch.onnx.export needs it
    except ImportError as error:
        raise UserError(
            f"ONNX needs {error.name}; install it with: pip install 'afi-search[export]'; or leave "
            f"ONNX out with --no-onnx"
        ) from None


def to_onnx(model: Model) -> bytes:
    """Return a model as ONNX, any batch size, `images` in and `logits` out, once it is checked.

    Raises:
        UserError: onnx is not installed, or onnxruntime's logits differ from PyTorch's.
    """
    demand_onnx()
    import onnxruntime

    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            model.module,
            (_images(model, 2),),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.cpu().numpy()})[0])

    _check(ONNX, model, run)
    return content


def to_exported(model: Model) -> bytes:
    """Return a model as a torch.export program for any batch size, checked likewise."""
    content = io.BytesIO()
    with _quiet(), torch.no_grad():
        program = torch.export.export(
            model.module, (_images(model, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, content)
        _check(EXPORTED, model, torch.export.load(content).module())
    return content.getvalue()


def _images(model: Model, batch: int) -> Tensor:
    crop = model.facts.preprocessing.crop
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, crop, crop, generator=generator).to(model.device)


def _check(name: str, model: Model, run: Callable[[Tensor], Tensor]) -> None:
    """Make sure that what runs from a file gives the model's logits."""
    for batch in _CHECKED_BATCHES:
        images = _images(model, batch)
        expected = model(images)
        largest = float(expected.abs().max())
        difference = float((run(images).cpu() - expected.cpu()).abs().max())
        if not difference <= TOLERANCE * max(largest, 1.0):
            raise UserError(
                f"{name}: its logits differ from PyTorch's by up to {difference:.2g} (the largest "
                f"logit is {largest:.2g}), and nothing was written"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress off the screen; errors still come as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        ignored = warnings.catch_warnings(action="ignore")
        with ignored, contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
