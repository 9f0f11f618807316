"""Pretrained weights: torchvision's, for every layer that AFI leaves as it is."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import safe_globals

from afi_search.errors import UserError
from afi_search.formatting import in_a_line
from afi_search.nn.stage import searched_stages


class PretrainedError(UserError):
    """A file that holds no weights for the network."""


_AVERAGES_FIRST = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model")
"""Where a training's checkpoint has its weights; the average of many steps is the better."""
_WRAPPERS = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch puts into the names of a network, or of a part of it, that it has wrapped."""
_BLOCK = re.compile(r"(.*?)\.(\d+)\.")
_BLOCKED = re.compile(r"unsupported GLOBAL (\S+) whose module")
_FOREIGN = re.compile(r"Unsupported global: GLOBAL (\S+) was not an allowed global")
_FILLED = re.compile(rf"Can only (append|extend)?.* got <class '{re.escape(__name__)}\.(\S+)'>")
_INDEX = ".index.json"
_IN_A_FOLDER = ("model.safetensors", f"model.safetensors{_INDEX}")
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
class Loaded:
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


def load_pretrained(model: nn.Module, path: str | Path) -> Loaded:
    """Load into a network all that fits of a torchvision state dict; return what did.

    A tensor fits where it has the same name and shape. A model whose names are not torchvision's
    has a method `own_name` that translates one.

    Args:
        model: the network; its tensors are overwritten in place.
        path: a file of safetensors or of torch.save: a state dict, whatever all its names begin
            with ("module.", "model.backbone."), or a training's checkpoint with one in it: the one
            of which most fits, a moving average first; the index of a file in shards; or a model's
            folder, as `afi-search extract` writes it. Nothing in the file is executed.

    Raises:
        PretrainedError: the file is not there or is no file of weights; no convolution in it fits;
            it is of a network of another depth; or weights are no plain finite numbers.
    """
    found = [_Fitting(model, weights) for weights in _read(path)]
    best = max(found, key=lambda fitting: len(fitting.tensors))  # the first of equals
    best.require_all_is_well(in_a_line(path))
    model.load_state_dict(best.tensors, strict=False)
    fresh = tuple(name for name in best.own if name not in best.tensors)
    return Loaded(tuple(best.tensors), fresh, best.unused)


def digest(path: str | Path) -> str:
    """Return the SHA-256 of what `load_pretrained` reads; "" where that cannot be read."""
    try:
        file = _file(path)
        files = [file, *(_shard_files(file) if file.name.endswith(_INDEX) else ())]
        if not all(each.is_file() for each in files):  # a device or a pipe may never end
            return ""
        parts = [hashlib.sha256(each.read_bytes()).digest() for each in files]
    except Exception:  # an index may hold anything; where it matters, `load_pretrained` says what
        return ""
    return hashlib.sha256(b"".join(parts)).hexdigest()


class _Fitting:
    """What of a state dict fits a network; `tensors` by the network's names."""

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self.of, self.own = type(model).__name__, model.state_dict()
        self.stages = searched_stages(model).keys()
        translate = getattr(model, "own_name", str)
        plain = {name: _WRAPPERS.sub("", name) for name in weights}
        prefix = _prefix(plain.values(), lambda name: translate(name) in self.own)
        targets = {name: translate(plain[name].removeprefix(prefix)) for name in weights}
        fits = {
            name: target in self.own and self.own[target].shape == weights[name].shape
            for name, target in targets.items()
        }
        self.theirs = {targets[name]: name for name in weights}
        self.tensors = {targets[name]: weights[name] for name in weights if fits[name]}
        self.unused = tuple(name for name in weights if not fits[name])

    def require_all_is_well(self, path: str) -> None:
        """Raise a PretrainedError where these are not weights to begin with."""
        if not any(tensor.dim() == 4 for tensor in self.tensors.values()):
            which = "the convolutions among its" if self.tensors else "its"
            raise PretrainedError(
                f"{path}: none of {which} {len(self.theirs)} tensors fits {self.of}; it must be "
                f"torchvision's state dict of the same backbone"
            )
        theirs, ours = _blocks(self.theirs), _blocks(self.own)
        for stage in sorted(ours.keys() & (theirs.keys() | self.stages) if theirs else ()):
            differ = theirs.get(stage, set()) ^ ours[stage]
            if differ:
                raise PretrainedError(
                    f"{path}: is of a network of another depth: its {stage} has "
                    f"{len(theirs.get(stage, ()))} blocks, and {self.of}'s {len(ours[stage])}; "
                    f"{stage}.{min(differ)} is in one of them alone (or it is one shard of "
                    f"several: name their index, *.index.json)"
                )
        reasons = {name: _wrong(name, t, self.own[name]) for name, t in self.tensors.items()}
        reason = next(filter(None, reasons.values()), None)
        if reason:
            bad = [self.theirs[name] for name in reasons if reasons[name] == reason]
            more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            raise PretrainedError(
                f"{path}: holds {reason} in {', '.join(bad[:_NAMED])}{more}; the training that "
                f"wrote it has failed, or they were converted"
            )


def _wrong(name: str, tensor: Tensor, own: Tensor) -> str:
    """Say what keeps a tensor from being a network's; "" where nothing does."""
    if tensor.layout is not torch.strided:
        return f"{tensor.layout} tensors"
    if tensor.is_quantized or (own.is_floating_point() and not tensor.is_floating_point()):
        return f"values of {tensor.dtype}"
    values = tensor.double()
    if not values.isfinite().all():
        return "NaN or infinity"
    return "negative variances" if name.endswith("running_var") and values.min() < 0 else ""


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


def _read(path: str | Path) -> list[dict[str, Tensor]]:
    """Return all state dicts in a file; there is at least one."""
    told = in_a_line(path)
    if "://" in told:
        raise PretrainedError(f"{told}: is a URL; download it, and name the file")
    try:
        path = _file(path)
        if path.name.endswith(_INDEX):
            return [{n: t for file in _shard_files(path) for n, t in _read(file)[0].items()}]
        content = _load(path)
    except FileNotFoundError:
        raise PretrainedError(f"{told}: there is no such file of pretrained weights") from None
    except SafetensorError as error:
        raise PretrainedError(f"{told}: is cut short or damaged: {error}") from None
    except PretrainedError:
        raise
    except Exception as error:  # torch and pickle raise anything at a damaged file
        reason = str(getattr(error, "strerror", None) or error) or type(error).__name__
        reason = reason.rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0]
        raise PretrainedError(f"{told}: is no file of weights, or is cut short: {reason}") from None
    if isinstance(content, _Inert):
        raise PretrainedError(
            f"{told}: holds a whole network, which is code, and not its weights; write them with "
            f"torch.save(network.state_dict(), FILE)"
        )
    found = _state_dicts(content)
    if not found:
        parts = content.items() if isinstance(content, Mapping) else [("it", content)]
        kinds = [f"{name} is of type {type(part).__name__}" for name, part in parts]
        raise PretrainedError(
            f"{told}: holds no state dict (names to tensors); "
            f"{', '.join(kinds[:_NAMED]) or 'it is empty'}"
        )
    return found


def _file(path: str | Path) -> Path:
    path = Path(path).expanduser()
    return next((path / name for name in _IN_A_FOLDER if (path / name).is_file()), path)


def _shard_files(index: Path) -> list[Path]:
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [index.with_name(name) for name in sorted(names)]


def _state_dicts(content: Any) -> list[dict[str, Tensor]]:
    """Return all that maps names to tensors, however far inside, averages of many steps first."""
    last = len(_AVERAGES_FIRST)
    found, seen, waiting = [], set[int](), [(last, content)]
    for rank, mapping in waiting:
        if not isinstance(mapping, Mapping) or id(mapping) in seen:
            continue
        seen.add(id(mapping))
        named = {n: t for n, t in mapping.items() if isinstance(n, str) and isinstance(t, Tensor)}
        found.append((rank, {name: t for name, t in named.items() if not t.is_meta}))
        for key, inside in mapping.items():
            known = _AVERAGES_FIRST.index(key) if key in _AVERAGES_FIRST else last
            waiting.append((min(rank, known), inside))
    return [tensors for _, tensors in sorted(found, key=lambda each: each[0]) if tensors]


def _load(path: Path) -> Any:
    if path.is_dir():
        raise ValueError(f"there is no {' or '.join(_IN_A_FOLDER)} in it")
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    with path.open("rb") as file:
        head = file.read(24)
    if head[8:9] == b"{":
        return load_file(path)
    if head.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            is_script = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if damaged:
            raise ValueError(f"its part {damaged} is damaged")
        if is_script:
            raise ValueError("it is of torch.jit.save or torch.export, which is code")
    elif not head.startswith(b"\x80"):
        raise ValueError(f"it begins with {head.decode('latin-1')!r}" if head else "it is empty")
    inert: dict[str, Any] = {"collections.defaultdict": lambda *_: {}}
    while True:
        try:
            allowed = safe_globals([(stand_in, name) for name, stand_in in inert.items()])
            with warnings.catch_warnings(action="ignore"), allowed, path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            foreign, filled = _FOREIGN.search(str(error)), _FILLED.search(str(error))
            if filled:  # a kind of dict or list, which torch fills only where it is a plain one
                found, kind = filled[2], list if filled[1] else OrderedDict
                stand_in = type(found, (), {"__new__": lambda *_, kind=kind: kind()})
            elif foreign and foreign[1] not in inert:
                found, stand_in = foreign[1], type(foreign[1], (_Inert,), {})
            else:
                blocked = _BLOCKED.search(str(error))
                if blocked:
                    raise ValueError(f"it asks for {blocked[1]}, which is code") from None
                raise
            for name in (found, f"builtins.{found}"):  # as torch shortens it
                inert[name] = stand_in
