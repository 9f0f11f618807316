"""Warm starts: torchvision's weights for every layer that AFI leaves as it is."""

from __future__ import annotations

import pickle
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from afi_search.errors import UserError


class PretrainedError(UserError):
    """A file that holds no weights for the network."""


_INSIDE = (
    "state_dict_ema",
    "model_ema",
    "ema",
    "state_dict",
    "model_state_dict",
    "model",
    "module",
)
"""Where a training's checkpoint has its weights; the average of many steps is the better."""
_BLOCK = re.compile(r"(.*?)\.(\d+)\.")
_NAMED = 5


class _Inert(dict[Any, Any]):
    """Stands for whatever a file holds beside its weights, so that nothing of it is executed."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


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
        path: a file of safetensors or of torch.save: a state dict, whatever all its names begin
            with ("module.", "model.backbone."), or a training's checkpoint with one in it, its
            moving average first; or a model's folder, as `afi-search extract` writes it. Nothing in
            the file is executed.

    Raises:
        PretrainedError: the file is not there, is no such file, nothing in it fits, it is of a
            network of another depth, or weights are not finite.
    """
    path = Path(path)
    weights = _read(path / "model.safetensors" if path.is_dir() else path)
    translate = getattr(model, "own_name", str)
    own = model.state_dict()
    plain = {name: name.replace("_orig_mod.", "") for name in weights}  # of a compiled network
    prefix = _prefix(plain.values(), lambda name: translate(name) in own)
    targets = {name: translate(plain[name].removeprefix(prefix)) for name in weights}
    fits = {
        name: target in own and own[target].shape == weights[name].shape
        for name, target in targets.items()
    }
    fitting = {targets[name]: weights[name] for name in weights if fits[name]}
    unused = [name for name in weights if not fits[name]]
    if not fitting:
        raise PretrainedError(
            f"{path}: none of its {len(weights)} tensors fits {type(model).__name__}; "
            f"it must be torchvision's state dict of the same backbone"
        )
    deeper = _blocks(targets.values()), _blocks(own)
    for stage in sorted(deeper[0].keys() & deeper[1].keys()):
        theirs, ours = (blocks[stage] for blocks in deeper)
        if theirs != ours:
            example = f"{stage}.{min(theirs ^ ours)}"
            raise PretrainedError(
                f"{path}: is of a network of another depth: its {stage} has {len(theirs)} blocks, "
                f"and {type(model).__name__}'s {len(ours)}; {example} is in one of them alone"
            )
    bad = [name for name in weights if fits[name] and not weights[name].isfinite().all()]
    if bad:
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise PretrainedError(
            f"{path}: holds NaN or infinity in {', '.join(bad[:_NAMED])}{more}; the training that "
            f"wrote it has failed"
        )
    model.load_state_dict(fitting, strict=False)
    fresh = tuple(name for name in own if name not in fitting)
    return WarmStart(tuple(fitting), fresh, tuple(unused))


def _prefix(names: Iterable[str], is_own: Callable[[str], bool]) -> str:
    """Return what most names begin with that are the network's own without it."""
    counts: Counter[str] = Counter()
    for name in names:
        starts = (0, *(dot.end() for dot in re.finditer(r"\.", name)))
        counts.update(name[:start] for start in starts if is_own(name[start:]))
    return max(counts, key=lambda prefix: counts[prefix], default="")


def _blocks(names: Iterable[str]) -> dict[str, set[int]]:
    """Return the numbers of each stage's blocks, of what AFI has not added."""
    blocks = defaultdict(set)
    for name in names:
        found = _BLOCK.match(name)
        if found and "afi" not in name:
            blocks[found[1]].add(int(found[2]))
    return dict(blocks)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        content = _load(path)
    except FileNotFoundError:
        raise PretrainedError(f"{path}: there is no such file of pretrained weights") from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        told = str(error).rpartition("WeightsUnpickler error: ")[2].strip().splitlines()
        reason = told[0] if told else type(error).__name__
        raise PretrainedError(f"{path}: is no file of weights, or is cut short: {reason}") from None
    except SafetensorError as error:
        raise PretrainedError(f"{path}: is cut short or damaged: {error}") from None
    if isinstance(content, _Inert):
        raise PretrainedError(
            f"{path}: holds a whole network, which is code, and not its weights; write them with "
            f"torch.save(network.state_dict(), FILE)"
        )
    while isinstance(content, Mapping) and (inside := _inside(content)) is not None:
        content = content[inside]
    tensors = content if isinstance(content, Mapping) else {}
    weights = {name: t for name, t in tensors.items() if isinstance(t, Tensor) and not t.is_meta}
    if not weights or not all(isinstance(name, str) for name in weights):
        raise PretrainedError(f"{path}: holds no state dict (names to tensors)")
    return weights


def _inside(content: Mapping[Any, Any]) -> str | None:
    """Return the key of the weights in a checkpoint, None where they are not further inside."""
    for key in _INSIDE:
        value = content.get(key)
        if isinstance(value, Mapping) and value and not isinstance(value, _Inert):
            return key
    return None


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(9)
    if path.suffix == ".safetensors" or head[8:] == b"{":
        return load_file(path)
    foreign = get_unsafe_globals_in_checkpoint(path) if head.startswith(b"PK") else []
    inert: dict[str, Any] = {name: type("_Inert", (_Inert,), {}) for name in foreign}
    inert |= {"argparse.Namespace": _Inert, "collections.defaultdict": lambda *_: {}}
    with safe_globals([(stand_in, name) for name, stand_in in inert.items()]):
        return torch.load(path, map_location="cpu", weights_only=True)
