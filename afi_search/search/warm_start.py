"""What another study of the same space has shown: evidence for the sampler of a new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from afi_search.cost import SpaceCosts
from afi_search.space import Architecture, Space, SpaceFile
from afi_search.study.folder import StudyError
from afi_search.study.ledger import asked_for
from afi_search.study.study import Study

_SAME = ("backbone", "stages", "architectures", "objectives", "data", "recipe")
_KEPT = "warm_start"
_TRAINED = (TrialState.COMPLETE, TrialState.PRUNED)


def evidence(study: Study, space: Space, costs: SpaceCosts) -> list[FrozenTrial]:
    """Return the trials of the study that `search.warm_start` names, if it names one.

    They are read when the study begins and kept in its own ledger, on which alone its proposals
    depend from then on. A StudyError: there is no such study, or its trials would not compare.
    """
    if space.file.search.warm_start is None:
        return []
    kept = study.ledger.study.user_attrs.get(_KEPT)
    if kept is None:
        kept = read_other(space.file)
        study.ledger.study.set_user_attr(_KEPT, kept)
    return [_trial(space, costs, each) for each in kept]


def read_other(file: SpaceFile) -> list[dict[str, Any]]:
    """Return what is kept of the study that `search.warm_start` names; nothing if it names none."""
    if (folder := file.search.warm_start) is None:
        return []
    other = Study.open(folder)
    differing = [name for name in _SAME if getattr(other.file.space, name) != getattr(file, name)]
    if differing:
        raise StudyError(
            f"search.warm_start: {folder}: its trials would not compare; other than this study's: "
            f"{', '.join(differing)}"
        )
    return [
        {
            "architecture": trial.user_attrs["architecture"],
            "state": trial.state.name,
            "values": trial.values,
            "curve": list(trial.intermediate_values.items()),
        }
        for trial in other.ledger.trials(_TRAINED)
    ]


def _trial(space: Space, costs: SpaceCosts, kept: Mapping[str, Any]) -> FrozenTrial:
    named = Architecture.parse(kept["architecture"])
    return create_trial(
        state=TrialState[kept["state"]],
        values=kept["values"],
        **asked_for(space, named),
        user_attrs={"architecture": kept["architecture"], **costs.of(named).figures()},
        intermediate_values={int(epoch): accuracy for epoch, accuracy in kept["curve"]},
    )
