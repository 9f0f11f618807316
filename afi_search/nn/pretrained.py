"""Warm starts: torchvision's weights for every layer that AFI leaves as it is."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afi_search.errors import UserError


class PretrainedError(UserError):
    """A file that holds no weights for the network."""


@dataclass(frozen=True)
class WarmStart:
    """What was loaded into a network, by the names of its tensors.

    Attributes:
        loaded: tensors that have the file's values.
        fresh: tensors of the network for which the file has none, or none of the same shape.
        unused: tensors of the file that went nowhere, by the file's names.
    """

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded, {len(self.fresh)} drawn anew:"]
        lines += [f"  {name}" for name in self.fresh]
        if self.unused:
            lines.append(f"{len(self.unused)} tensors of the file not used:")
            lines += [f"  {name}" for name in self.unused]
        return "\n".join(lines)


def warm_start(model: nn.Module, path: str | Path) -> WarmStart:
    """Load into a network all that fits of a torchvision state dict; return what did.

    A tensor fits where it has the same name and shape. A model whose names are not torchvision's
    has a method `own_name` that translates one.

    Args:
        model: the network; its tensors are overwritten in place.
        path: a file written by torch.save: a state dict, or a dict with one under "model" or
            "state_dict".

    Raises:
        PretrainedError: the file is not there, is no such file, or nothing in it fits.
    """
    weights = _read(Path(path))
    own_name = getattr(model, "own_name", str)
    own = model.state_dict()
    fitting = {}
    unused = []
    for name, tensor in weights.items():
        target = own.get(own_name(name))
        if target is not None and target.shape == tensor.shape:
            fitting[own_name(name)] = tensor
        else:
            unused.append(name)
    if not fitting:
        raise PretrainedError(
            f"{path}: none of its {len(weights)} tensors fits {type(model).__name__}; "
            f"it must be torchvision's state dict of the same backbone"
        )
    model.load_state_dict(fitting, strict=False)
    fresh = tuple(name for name in own if name not in fitting)
    return WarmStart(tuple(fitting), fresh, tuple(unused))


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise PretrainedError(f"{path}: there is no such file of pretrained weights") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PretrainedError(f"{path}: is no file of weights, or is cut short: {reason}") from None
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(tensor, Tensor) for tensor in content.values()
    ):
        raise PretrainedError(f"{path}: holds no state dict (names to tensors)")
    return content
