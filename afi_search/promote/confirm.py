"""Confirming a front: the recipe of `confirm:`, several seeds, the test set at the end.

A confirmation is a study of its own in the folder `confirm` of the study it confirms, so that what
is searched and what is confirmed never mix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd
from optuna.trial import TrialState

from afi_search.cost import CostTable, measure
from afi_search.data import locate, read_data, spec_of
from afi_search.data.tensor_source import Normalise, normalised_batches
from afi_search.device import compute_device, describe_device
from afi_search.engine.ray_session import RaySession
from afi_search.engine.run_study import Run, run_trials
from afi_search.errors import UserError
from afi_search.model.from_checkpoint import trial_model
from afi_search.promote.confirm_results import confirmed_table, read_confirmed, write_confirmed
from afi_search.search.listener import Listener
from afi_search.search.prepare import measure_costs
from afi_search.search.proposer import ListedProposer
from afi_search.space import Architecture, Space, SpaceFile
from afi_search.space.schema import Confirm, Search
from afi_search.study.checkpoint_location import check_url
from afi_search.study.checkpoint_retention import drop_others, worth_keeping
from afi_search.study.facts import gather_facts
from afi_search.study.folder import CONFIRM, StudyFile, has_study
from afi_search.study.ledger import Ledger
from afi_search.study.study import Study
from afi_search.train import Evaluator

OBJECTIVES = ("accuracy", "macs")


def confirm_study(
    study: Study,
    architectures: Sequence[Architecture | str] = (),
    *,
    data: str | None = None,
    address: str | None = None,
    checkpoints: str | None = None,
    listener: Listener | None = None,
    **settings: object,
) -> pd.DataFrame:
    """Confirm a study's front, or those, or resume that; see `afi_search.Study.confirm`.

    What is confirmed is written, also where it is interrupted, and returned: a row an architecture,
    as of `confirmed_table`. `settings` are keys of the space file's `confirm` section, before what
    it says itself.
    """
    listener = listener or Listener()
    spec = spec_of(study.file.space.data)
    wanted = (study.file.space.confirm or Confirm()).given(**settings)
    origins = to_confirm(study, wanted, [Architecture.of(each) for each in architectures])
    folder = study.folder / CONFIRM
    asked = StudyFile(
        name=f"{study.name}-confirm",
        preset="",
        note=f"The front of {study.name}, with {wanted.seeds} seeds.",
        space=confirmation_file(folder, study.file.space, wanted, origins),
        facts=gather_facts(f"afi-search confirm {study.folder}", describe_device()),
        storage=study.file.storage,
        checkpoints=check_url(checkpoints),
    )
    locate(asked.space.data.name, data or asked.space.data.folder)

    cost = partial(measure, num_classes=spec.num_classes, image_size=spec.image_size)
    with Study.begin(folder, asked, may_change=("architectures",)) as confirmation:
        seeds = fresh_seeds(asked.space.search.seed, wanted.seeds)
        proposer = ListedProposer(origins, seeds, cost)
        try:
            with RaySession(address, listener.engine_lost) as session:
                run_trials(confirmation, proposer, Run(session, data, listener))
            _test(confirmation, data)
        finally:
            table = read_confirmed(study)
            if not table.empty:
                write_confirmed(table, folder)
    return table


def to_confirm(
    study: Study, wanted: Confirm, named: Sequence[Architecture] = ()
) -> dict[Architecture, str]:
    """Return what is to be confirmed, each with its origin: front, named or baseline."""
    points = study.front()
    if wanted.top is not None:
        points = points.nlargest(wanted.top, "accuracy")
    parsed = map(Architecture.parse, points["architecture"])
    chosen = {} if named else dict.fromkeys(parsed, "front")
    chosen |= dict.fromkeys((*wanted.architectures, *named), "named")
    if not chosen:
        raise UserError(
            f"{study.folder}: no trial has reached full fidelity yet, so there is no front to "
            f"confirm; resume the study, or name what to confirm with --architecture"
        )
    if wanted.baselines:
        backbones = dict.fromkeys(architecture.backbone for architecture in chosen)
        baselines = (a for backbone in backbones for a in Architecture.baselines(backbone))
        chosen = dict.fromkeys(_keeping_constraints(study, baselines), "baseline") | chosen
    return chosen


def _keeping_constraints(study: Study, given: Iterable[Architecture]) -> Iterator[Architecture]:
    file = study.file.space
    if not file.constraints.limits():
        yield from given
        return
    costs = measure_costs(Space(file), Listener(), CostTable.read(study.folder))
    for architecture in given:
        with suppress(KeyError):  # its latency was never measured
            if costs.allow(costs.of(architecture)):
                yield architecture


def confirmation_file(
    folder: Path, searched: SpaceFile, wanted: Confirm, origins: dict[Architecture, str]
) -> SpaceFile:
    """Return the confirmation as a space file; what an earlier one has confirmed stays in it."""
    before = StudyFile.read(folder).space if has_study(folder) else SpaceFile()
    seeds = max(wanted.seeds, before.confirm.seeds if before.confirm else 0)
    subsets = {name: getattr(wanted, name) for name in ("train_subset", "validation_subset")}
    architectures = tuple(dict.fromkeys((*before.architectures, *origins)))
    return SpaceFile(
        imports=searched.imports,
        imports_from=searched.imports_from,
        architectures=architectures,
        data=searched.data.model_copy(update=subsets),
        objectives=OBJECTIVES,
        recipe=wanted.recipe,
        search=Search(
            trials=len(architectures) * seeds,
            sampler="random",
            seed=searched.search.seed,
            concurrency=searched.search.concurrency,
            gpus_per_trial=searched.search.gpus_per_trial,
        ),
        confirm=wanted.model_copy(update={"seeds": seeds}),
    )


def fresh_seeds(searched: int, count: int) -> list[int]:
    """Return seeds that follow the search's own, whose luck chose the front."""
    return list(range(searched + 1, searched + 1 + count))


def prune_study(study: Study) -> int:
    """Delete the checkpoints of a study and its confirmation that nothing needs; return bytes.

    A promotion's checkpoints stay: it is resumed from them.
    """
    with study.held():
        study.require_owned()
        before = study.disk_use()
        drop_others(
            study.checkpoints, worth_keeping(study.ledger.trials(), study.file.space.objectives)
        )
        if study.confirmation is not None:
            drop_others(study.confirmation.checkpoints, _kept(study.confirmation.ledger))
        return before - study.disk_use()


def _kept(confirmation: Ledger) -> set[int]:
    """Return the trainings that are not finished or not tested, or that no other beats."""
    trials, tested = confirmation.trials(), confirmation.tested()
    confirmed = confirmed_table(trials, tested)
    beaten = set(confirmed.loc[confirmed["verdict"] == "beaten", "architecture"])
    return {
        trial.number
        for trial in trials
        if trial.state not in (TrialState.PRUNED, TrialState.FAIL)
        and (trial.number not in tested or trial.user_attrs["architecture"] not in beaten)
    }


def _test(confirmation: Study, data: str | None) -> None:
    """Read the test set for every finished training that has not been tested yet."""
    ledger = confirmation.ledger
    known = ledger.tested()
    untested = [t.number for t in ledger.trials((TrialState.COMPLETE,)) if t.number not in known]
    if not untested:
        return
    images = read_data(confirmation.file.space.data, data)
    device = compute_device()
    normalise = Normalise(images.spec.mean, images.spec.std, device)
    for number in untested:
        module = trial_model(confirmation, number).module.to(device)
        evaluate = Evaluator(module, device=device, precision="fp32")
        reached = evaluate(normalised_batches(images.test, normalise))
        ledger.note_tested(number, reached.accuracy)
