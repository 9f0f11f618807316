"""The networks that the supernet of a study holds."""

from __future__ import annotations

import torch

from afi_search.data import read_data, spec_of, split_of
from afi_search.model.from_checkpoint import NoCheckpoint, trained_facts, trial_state
from afi_search.model.model import Model
from afi_search.nn import Supernet
from afi_search.space import Architecture
from afi_search.study.study import Study
from afi_search.train.supernet import InheritedAccuracy, restored


def trained_supernet(study: Study) -> Supernet:
    """Return the supernet that a study has trained; NoCheckpoint where it has none."""
    if study.supernet is None:
        raise NoCheckpoint(
            f"{study.folder}: has no supernet; a study trains one with `strategy: supernet` or "
            f"`strategy: hybrid` under `search` in its space file"
        )
    file = study.file.space
    return restored(file, spec_of(file.data), trial_state(study.supernet.folder, 0))


def inherited_model(
    study: Study, architecture: Architecture | str, *, data: str | None = None
) -> Model:
    """Return an architecture with the weights that it inherits; see `afi_search.Study.extract`.

    Its batch norms are calibrated, which takes the study's data set.
    """
    net = trained_supernet(study)
    net.set_active(architecture)
    file = study.file.space
    images = split_of(file.data, read_data(file.data, data))
    inherit = InheritedAccuracy(net, images, precision="fp32", device=torch.device("cpu"))
    accuracy = inherit(net.active).accuracy
    assert study.supernet is not None
    trained = study.supernet.file
    how = {"inherited from": trained.name, "sampling": file.search.supernet.sampling}
    metrics = {"validation accuracy, inherited": accuracy}
    return Model(net.extract(), trained_facts(trained, net.active, metrics, how))
