"""What a line of a ledger's journal may say: Optuna's operations, and what ours have in them.

All that is read anywhere has a type, as a file may be damaged, edited or another program's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, NotRequired, TypeAlias

from optuna.storages.journal._storage import JournalOperation as Op
from optuna.trial import TrialState
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from afi_search.space.architecture import Architecture

Log: TypeAlias = dict[str, Any]

_Whole = Annotated[int, Field(ge=0, lt=2**63)]
_Epoch = Annotated[int, Field(ge=1, le=1_000_000)]
_Share = Annotated[float, Field(ge=0, le=1)]
_State = Annotated[int, Field(ge=0, lt=len(TrialState))]
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def _names_an_architecture(text: str) -> str:
    Architecture.parse(text)
    return text


class _Verdict(TypedDict):
    stop: bool
    why: str


class _Said(TypedDict):
    epoch: _Epoch
    verdict: _Verdict | None
    kept: list[tuple[str, list[Any], Log]]
    asked: NotRequired[_Whole]


class _Remembered(TypedDict, total=False):
    memory: float
    latency: float
    seconds: float
    reason: str
    init: str
    deaths: list[str]
    pruner: _Said


class Facts(_Remembered):
    """What is known of every trial when it begins."""

    architecture: Annotated[str, AfterValidator(_names_an_architecture)]
    seed: _Whole
    epochs: _Epoch
    macs: _Whole
    params: _Whole
    paper_gflops: float
    origin: str


FACTS = TypeAdapter(Facts)


class _Trained(TypedDict):
    epoch: _Epoch
    accuracy: _Share
    seconds: float


class _Known(TypedDict):
    architecture: Annotated[str, AfterValidator(_names_an_architecture)]
    seed: _Whole
    init: NotRequired[str]


class Checkpointed(TypedDict):
    """What the checkpoint of a trial says of it."""

    history: list[_Trained]
    trial: _Known


class _Owner(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    id: str
    name: str
    home: str
    host: NotRequired[str]
    inode: NotRequired[_Whole]


_Foreseen = TypedDict(
    "_Foreseen",
    {
        "known_cost:prediction": Annotated[list[float], Field(min_length=2, max_length=2)],
        "inherited:accuracy": float,
        "inherited:estimate": float,
        "NSGAIISampler:generation": _Whole,
    },
    total=False,
)
_NUMBERED: dict[str, TypeAdapter[Any]] = {
    "too dear: ": TypeAdapter(dict[str, float]),
    "scores/": TypeAdapter(dict[str, dict[str, float]]),
    "test_accuracy/": TypeAdapter(_Share),
}


def _check_numbered(notes: Log) -> Log:
    """Check what a study notes under names that begin like those, and go on."""
    for name, value in notes.items():
        for beginning, kind in _NUMBERED.items():
            if name.startswith(beginning):
                kind.validate_python(value, strict=True)
                if beginning == "test_accuracy/":
                    int(name.removeprefix(beginning))
    return notes


_Notes = TypedDict(
    "_Notes",
    {"owner": _Owner, "study.yaml": str, "seed": _Whole, "images": dict[str, float]},
    total=False,
)
_OfStudy = Annotated[_Notes, AfterValidator(_check_numbered)]
_Named = TypedDict("_Named", {"study:metric_names": list[str]}, total=False)


_OF_STUDY, _OF_TRIAL = {"study_id": _Whole}, {"trial_id": _Whole}
_FIELDS: dict[int, dict[str, Any]] = {
    Op.CREATE_STUDY: {
        "study_name": str,
        "directions": Annotated[list[Annotated[int, Field(ge=1, le=2)]], Field(min_length=1)],
    },
    Op.SET_STUDY_USER_ATTR: {**_OF_STUDY, "user_attr": _OfStudy},
    Op.SET_STUDY_SYSTEM_ATTR: {**_OF_STUDY, "system_attr": _Named},
    Op.CREATE_TRIAL: {
        **_OF_STUDY,
        "trial_id": NotRequired[_Whole],
        "datetime_start": str | None,
        "datetime_complete": NotRequired[str],
        "state": NotRequired[_State],
        "value": NotRequired[float | None],
        "values": NotRequired[list[float] | None],
        "distributions": NotRequired[dict[str, str]],
        "params": NotRequired[dict[str, float]],
        "user_attrs": Facts,
        "system_attrs": NotRequired[_Foreseen],
        "intermediate_values": NotRequired[
            dict[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}$")], _Share]
        ],
    },
    Op.SET_TRIAL_PARAM: {
        **_OF_TRIAL,
        "param_name": str,
        "param_value_internal": float,
        "distribution": str,
    },
    Op.SET_TRIAL_STATE_VALUES: {
        **_OF_TRIAL,
        "state": _State,
        "values": list[float] | None,
        "datetime_start": NotRequired[str],
        "datetime_complete": NotRequired[str],
    },
    Op.SET_TRIAL_INTERMEDIATE_VALUE: {
        **_OF_TRIAL,
        "step": _Epoch,
        "intermediate_value": _Share,
    },
    Op.SET_TRIAL_USER_ATTR: {**_OF_TRIAL, "user_attr": _Remembered},
    Op.SET_TRIAL_SYSTEM_ATTR: {**_OF_TRIAL, "system_attr": _Foreseen},
    Op.DISCARD_TRIALS: {},
}
"""By Optuna's operation, which has a `worker_id`, too."""


def _kind(code: int, fields: Mapping[str, Any]) -> Any:
    common = {"op_code": Literal[int(code)], "worker_id": str}
    make: Any = TypedDict
    return make(f"_Operation{int(code)}", {**common, **fields})


_KINDS: Any = reduce(or_, (_kind(*each) for each in _FIELDS.items()))
_VALIDATOR = TypeAdapter[Any](
    Annotated[_KINDS, Field(discriminator="op_code")],
    config=ConfigDict(strict=True, extra="allow"),
).validator


def read_operation(line: bytes) -> Log:
    """Return the operation that a line is; a ValueError says why it is none."""
    try:
        return _VALIDATOR.validate_json(line)
    except ValidationError as error:
        if error.errors()[0]["type"] != "json_invalid":
            raise ValueError(_why_not(error)) from None
    try:  # surrogates: bytes of paths, which Python's JSON alone writes and reads
        log: Log = json.loads(line)
        _VALIDATOR.validate_json(_SURROGATE.sub(b"?", line))
    except ValidationError as error:
        raise ValueError(_why_not(error)) from None
    except (ValueError, RecursionError):
        nul = "holds NUL bytes, as a power failure leaves them"
        raise ValueError(nul if b"\0" in line else "is not JSON") from None
    return log


def _why_not(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    names = [part for part in first["loc"][1:] if isinstance(part, str)]
    if not names:
        return "is no operation of a ledger"
    if first["type"] == "missing" and names[0] == "user_attrs":
        return f"begins a trial and does not say its {names[-1]}"
    return f"has no {names[-1]} that a ledger could have"
