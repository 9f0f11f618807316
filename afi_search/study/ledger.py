"""The ledger: an Optuna study, the one truth about what was tried.

It holds every trial with its architecture, seed, cost, the accuracy of each epoch and how it
ended. Nothing else is needed to resume, to report or to compare.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from afi_search.cost import Cost
from afi_search.errors import UserError
from afi_search.space import Architecture, Space
from afi_search.space.objective import goes_up, own_measures
from afi_search.study.folder import StudyFile
from afi_search.study.journal import UNFINISHED as UNFINISHED
from afi_search.study.journal import read_trial
from afi_search.study.ownership import Mark
from afi_search.study.storage import FILES, JOURNAL, has_file, in_database, open_storage

if TYPE_CHECKING:
    import pandas as pd

    from afi_search.study.database import Hold

optuna.logging.set_verbosity(optuna.logging.ERROR)

_INFEASIBLE = "too dear: "  # in ledgers since 0.1.0, before an architecture's text
OWNER = "owner"
_SCORES = "scores/"  # before the number of a portion of them
_IMAGES = "images"
SETTINGS = "study.yaml"
_TESTED = "test_accuracy/"  # before a trial's number

RUNG, SAID, DEATHS = "rung ", "pruner", "deaths"
PREDICTION = "known_cost:prediction"
WEIGHED, ESTIMATED = "inherited:accuracy", "inherited:estimate"
"""The names of what a trial remembers of its decisions: by epoch why it went on, what its pruner
said last, which workers it lost, the accuracy that its sampler foresaw (mean and deviation), and
the one in the supernet that was gone by, as scored or as scores of others say."""

OBJECTIVES = "objectives"
"""The name under which a table of records says, in its `attrs`, what its study optimises."""

STATE_WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}

COLUMNS = {
    "number": "int64",
    "state": "str",
    "architecture": "str",
    "id": "str",
    "backbone": "str",
    "seed": "int64",
    "epochs": "int64",
    "full": "bool",
    "accuracy": "float64",
    "macs": "int64",
    "params": "int64",
    "paper_gflops": "float64",
    "memory": "float64",
    "latency": "float64",
    "seconds": "float64",
    "origin": "str",
    "init": "str",
    "curve": "object",
    "reason": "str",
    "started": "datetime64[us]",
    "finished": "datetime64[us]",
}
"""Column -> type. `epochs` are those trained, `full` says that they are all of the recipe's;
`accuracy` is the last epoch's on the validation split, 0 to 1; costs are those of
`afi_search.cost.Cost`, NaN where the study did not ask for them; `seconds` is time in training;
`init` is `random`, or `inherited` where the weights were the supernet's at first."""


class LedgerError(UserError):
    """A ledger that is not there, or does not fit the study."""


@dataclass(frozen=True)
class Proposal:
    """What a new trial is to try, before it is in the ledger.

    Attributes:
        cost: measured before any training.
        origin: who proposed it: `first`, a sampler's name, or `untried` (drawn uniformly).
        params: Optuna's parameters; empty where the architecture lies outside the space.
        system_attrs: what the sampler wants to remember of the trial.
        seed: of weights and batches; the study's where None.
        init: the weights that its training starts with: `random`, or `inherited` of the supernet.
        infeasible: what was named before it and does not keep the constraints.
    """

    architecture: Architecture
    cost: Cost
    origin: str
    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, CategoricalDistribution] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    init: str = "random"
    infeasible: Mapping[Architecture, Cost] = field(default_factory=dict)


def asked_for(space: Space, architecture: Architecture) -> dict[str, Any]:
    """Return `params` and `distributions` of a trial that tries an architecture of a space."""
    answers = space.answers(architecture)
    return {
        "params": {name: answer for name, (answer, _) in answers.items()},
        "distributions": {n: CategoricalDistribution(of) for n, (_, of) in answers.items()},
    }


class Ledger:
    """All trials of one study, in Optuna's storage.

    Only the driver writes to it, through its own methods and what a pruner keeps in the storage.
    Each method is one short transaction, so that a driver killed at any moment leaves a ledger that
    the next one resumes.

    >>> ledger = Ledger.open("studies/reference/resnet20-digits")
    >>> ledger.records()["state"].value_counts().to_dict()
    {'pruned': 8, 'complete': 4}
    >>> [round(accuracy, 3) for accuracy in curve(ledger.trial(3))][1::2]
    [0.683, 0.955]
    """

    def __init__(self, study: optuna.Study, storage: BaseStorage) -> None:
        self.study = study
        self._storage = storage

    @classmethod
    def create(cls, folder: Path, study: StudyFile, hold: Hold | None = None) -> Ledger:
        """Make the ledger of a new study; with a `hold`, it waits where its database goes away."""
        storage = open_storage(folder, study.storage, hold)
        with _written(folder):
            directions = directions_of(study.space.objectives)
            made = optuna.create_study(
                study_name=study.ledger or study.name, storage=storage, directions=directions
            )
            ledger = cls(made, storage)
            ledger._name_objectives(study)
        return ledger

    @classmethod
    def open(cls, folder: str | Path) -> Ledger:
        """Open the ledger of an existing study.

        Raises:
            StudyError: the folder holds no study.
            StorageError: its storage cannot be opened.
            LedgerError: the storage has no ledger of that name, or one for other objectives.
        """
        study = StudyFile.read(folder)
        ledger = cls.at(Path(folder), study.storage, study.ledger)
        if ledger is None:
            raise cls.gone(Path(folder), study)
        ledger._require_objectives(study, Path(folder))
        return ledger

    @classmethod
    def at(
        cls, folder: Path, storage_name: str, name: str, hold: Hold | None = None
    ) -> Ledger | None:
        """Open the ledger in a study's folder, or of that name in a database, if there is one."""
        if not in_database(storage_name) and not has_file(folder, storage_name):
            return None
        storage = open_storage(folder, storage_name, hold)
        names = optuna.get_all_study_names(storage)
        if not in_database(storage_name):
            name = next(iter(names), name)
        if name not in names:
            return None
        return cls(optuna.load_study(study_name=name, storage=storage), storage)

    @staticmethod
    def gone(folder: Path, study: StudyFile) -> LedgerError:
        """Return what to say where a study's ledger is gone, or has nothing in it."""
        place = FILES.get(study.storage, f"{study.ledger} in {study.storage}")
        return LedgerError(
            f"{folder}: its ledger ({place}) is gone, or has nothing in it. Nothing is begun "
            f"again: put it back, or let afi-search study repair {folder} make one from the "
            f"checkpoints; afi-search study rm {folder} deletes what is left"
        )

    def owner(self) -> Mark | None:
        """Return whose ledger it is; None where no driver has marked it yet."""
        mark = self.study.user_attrs.get(OWNER)
        return None if mark is None else Mark(**mark)

    def claim(self, owner: Mark, study: StudyFile, folder: Path) -> None:
        """Mark it as that study's, for its driver, and keep its study.yaml.

        A LedgerError: it was made for other objectives, or it cannot be written.
        """
        with _written(folder):
            self._name_objectives(study)
            for key, value in ((OWNER, asdict(owner)), (SETTINGS, study.dump())):
                if self.study.user_attrs.get(key) != value:
                    self.study.set_user_attr(key, value)
        self._require_objectives(study, folder)

    def _require_objectives(self, study: StudyFile, folder: Path) -> None:
        objectives = list(study.space.objectives)
        if self.study.metric_names != objectives:
            raise LedgerError(
                f"the ledger of {folder} was made for the objectives "
                f"{', '.join(self.study.metric_names or ())}, and the study has "
                f"{', '.join(objectives)}"
            )

    def _name_objectives(self, study: StudyFile) -> None:
        if self.study.metric_names is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self.study.set_metric_names(list(study.space.objectives))
            self.study.set_user_attr("seed", study.space.search.seed)

    def settings(self) -> StudyFile | None:
        """Return the study's settings when a driver last held it; None in older ledgers."""
        text = self.study.user_attrs.get(SETTINGS)
        return None if text is None else StudyFile.parse(text, "the study.yaml in its ledger")

    def compare_images(self, figures: Mapping[str, float]) -> None:
        """Make sure that trials are trained and judged on the images of those before them.

        `figures` are of the images, by name; those that differ by a hundredth are a LedgerError.
        """
        known = self.study.user_attrs.get(_IMAGES)
        if known is None:
            self.study.set_user_attr(_IMAGES, dict(figures))
            return
        was = {name: known.get(name, math.nan) for name in figures}
        if others := [n for n in figures if not math.isclose(was[n], figures[n], abs_tol=0.01)]:
            listed = "".join(
                f"\n  {n}: {was[n]:g} in the study, {figures[n]:g} now" for n in others
            )
            raise LedgerError(
                f"data: has other images than the trials of {self.study.study_name} had, which "
                f"would not compare:{listed}\nPut those back, or start another study with --name."
            )

    def trials(self, states: tuple[TrialState, ...] | None = None) -> list[FrozenTrial]:
        """Return the trials in order of their number, to be read only."""
        return self.study.get_trials(deepcopy=False, states=states)

    def trial(self, number: int) -> FrozenTrial:
        """Return one trial, to be read only; a KeyError where there is none of that number."""
        return self._storage.get_trial(self._id(number))

    def note_tested(self, number: int, accuracy: float) -> None:
        """Enter the accuracy of a finished trial on the test set, 0 to 1."""
        self.study.set_user_attr(f"{_TESTED}{number}", accuracy)

    def tested(self) -> dict[int, float]:
        """Return the test accuracies that are known: number of the trial -> 0 to 1."""
        return {int(number): accuracy for number, accuracy in self._entered(_TESTED).items()}

    def note_scores(self, scores: Mapping[Architecture, Mapping[str, float]]) -> None:
        """Enter what was said of architectures without training them, by the scores' names."""
        portion = {architecture.text: dict(of) for architecture, of in scores.items()}
        self.study.set_user_attr(f"{_SCORES}{len(self._entered(_SCORES))}", portion)

    def scores(self) -> pd.DataFrame:
        """Return a row an architecture, by its text, and a column a score.

        `inherited` is the validation accuracy, 0 to 1, with the weights of the study's supernet;
        `naswot`, `zico` and `synflow` are those of untrained networks; `inherited_seconds` and
        `cheap_seconds` are what they took.
        """
        import pandas as pd

        rows: dict[str, dict[str, float]] = {}
        for portion in self._entered(_SCORES).values():
            for text, of in portion.items():
                rows.setdefault(text, {}).update(of)
        return pd.DataFrame.from_dict(rows, orient="index", dtype="float64")

    @classmethod
    def find_in(cls, folder: str | Path, number: int) -> FrozenTrial:
        """Return the trial of a study that a person asks for, if possible without the others."""
        path = Path(folder) / FILES[JOURNAL]
        with suppress(Exception):  # which opening it as a whole tells in words
            in_lines = StudyFile.read(folder).storage == JOURNAL and path.is_file()
            if in_lines and (trial := read_trial(path, number)):
                return trial
        return cls.open(folder).find(number)

    def find(self, number: int) -> FrozenTrial:
        """Return the trial a person asks for; a LedgerError: there is none of that number."""
        trials = self.trials()
        if not 0 <= number < len(trials):
            there = f"0 to {len(trials) - 1}" if trials else "none yet"
            raise LedgerError(f"there is no trial {number}; there are {there}")
        return trials[number]

    def add(self, proposal: Proposal, seed: int, epochs: int) -> FrozenTrial:
        """Enter a new trial as RUNNING, with all that is known of it, at once."""
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=proposal.params,
            distributions=dict(proposal.distributions),
            user_attrs={
                "architecture": proposal.architecture.text,
                "seed": seed,
                "epochs": epochs,
                **proposal.cost.figures(),
                "origin": proposal.origin,
                "init": proposal.init,
            },
            system_attrs=proposal.system_attrs,
        )
        template.datetime_start = datetime.now()
        return self.enter(template)

    def enter(self, trial: FrozenTrial) -> FrozenTrial:
        """Enter a trial as it is, under the next number; return it with that."""
        return self._storage.get_trial(self._storage.create_new_trial(self.study._study_id, trial))

    def reject(self, architecture: Architecture, cost: Cost) -> None:
        """Enter, once, an architecture that does not keep the constraints; it is no trial."""
        key = f"{_INFEASIBLE}{architecture.text}"
        if key not in self.study.user_attrs:
            self.study.set_user_attr(key, cost.figures())

    def rejected(self) -> dict[str, dict[str, float]]:
        """Return what was named and did not keep the constraints: text -> costs by name."""
        return self._entered(_INFEASIBLE)

    def resume(self, number: int) -> None:
        """Mark a waiting trial as RUNNING."""
        self._storage.set_trial_state_values(self._id(number), TrialState.RUNNING)

    def suspend(self, number: int) -> None:
        """Mark a running trial as WAITING to be resumed."""
        self._storage.set_trial_state_values(self._id(number), TrialState.WAITING)

    def report(self, number: int, epoch: int, accuracy: float) -> FrozenTrial:
        """Enter the accuracy of an epoch, counted from 1, and return the trial with it.

        Entering it again changes nothing.
        """
        trial = self.trial(number)
        if trial.intermediate_values.get(epoch) == accuracy:
            return trial
        self._storage.set_trial_intermediate_value(trial._trial_id, epoch, accuracy)
        return self.trial(number)

    def note(self, number: int, **facts: Any) -> None:
        """Enter facts about a trial under their names, in that order, unless they are entered."""
        trial = self.trial(number)
        for key, value in facts.items():
            if trial.user_attrs.get(key) != value:
                self._storage.set_trial_user_attr(trial._trial_id, key, value)

    def keep(self, told: Iterable[tuple[str, Sequence[Any], Mapping[str, Any]]]) -> None:
        """Enter what a pruner has told a storage to set, as `afi_search.search.pruners` notes it.

        Entering it again changes nothing.
        """
        for name, values, named in told:
            if name.startswith("set_"):
                getattr(self._storage, name)(*values, **named)

    def finish(
        self, number: int, state: TrialState, values: Sequence[float] | None = None
    ) -> FrozenTrial:
        """End a trial as COMPLETE with its objectives' values, PRUNED or FAIL; return it."""
        self._storage.set_trial_state_values(self._id(number), state, values)
        return self.trial(number)

    def records(self) -> pd.DataFrame:
        """Return one row a trial; see `COLUMNS`.

        The table's `attrs` say under `OBJECTIVES` what the study optimises.
        """
        objectives = list(self.study.metric_names or ())
        table = to_frame(self.trials(), objectives)
        table.attrs[OBJECTIVES] = objectives
        return table

    def _entered(self, prefix: str) -> dict[str, Any]:
        attributes = self.study.user_attrs.items()
        return {k.removeprefix(prefix): value for k, value in attributes if k.startswith(prefix)}

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, StorageInternalError) as error:
        from afi_search.study.database import cause

        raise LedgerError(f"the ledger of {folder} cannot be written: {cause(error)}") from None


def directions_of(objectives: Sequence[str]) -> list[StudyDirection]:
    """Return Optuna's direction of each objective: accuracy up, costs down, or as registered."""
    up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    return [up if goes_up(name) else down for name in objectives]


def to_frame(trials: Iterable[FrozenTrial], objectives: Collection[str] = ()) -> pd.DataFrame:
    """Return one row a trial, in the order given.

    What users' functions measured has columns of its own, after the others; so have those
    functions that are objectives where nothing has been measured yet.
    """
    import pandas as pd

    rows = list(trials)
    own = [
        name
        for name in own_measures()
        if name in objectives or any(name in trial.user_attrs for trial in rows)
    ]
    columns = COLUMNS | dict.fromkeys(own, "float64")
    table = pd.DataFrame([_row(trial, own) for trial in rows], columns=list(columns))
    return table.astype(columns)


def curve(trial: FrozenTrial) -> list[float]:
    """Return the accuracy after each epoch, from the first; NaN where a damaged ledger lost it."""
    known = trial.intermediate_values
    return [known.get(epoch, math.nan) for epoch in range(1, (trial.last_step or 0) + 1)]


def _row(trial: FrozenTrial, own: Iterable[str]) -> dict[str, Any]:
    unknown = dict.fromkeys(("memory", "latency", *own), math.nan)
    missing = {**unknown, "seconds": 0.0, "reason": "", "init": "random"}
    facts: dict[str, Any] = missing | trial.user_attrs
    architecture = Architecture.parse(facts["architecture"])
    accuracies = curve(trial)
    return facts | {
        "number": trial.number,
        "state": STATE_WORDS[trial.state],
        "architecture": architecture.text,
        "id": architecture.id,
        "backbone": architecture.backbone,
        "epochs": len(accuracies),
        "full": trial.state == TrialState.COMPLETE and len(accuracies) == facts["epochs"],
        "accuracy": accuracies[-1] if accuracies else math.nan,
        "curve": accuracies,
        "started": trial.datetime_start,
        "finished": trial.datetime_complete,
    }
