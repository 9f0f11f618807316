"""The Python API: a study from its space file to its winners, without the command line.

What an action needs (Ray, networks, drawing) is imported when it is first called, so that a study
is opened and read at once.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afi_search.errors import UserError
from afi_search.search.listener import Listener
from afi_search.search.prepare import AUTO
from afi_search.space import Architecture
from afi_search.study import study as stored
from afi_search.study.facts import gather_facts
from afi_search.study.folder import STUDY_FILE, StudyFile, has_study, study_name
from afi_search.study.storage import JOURNAL, check_storage

if TYPE_CHECKING:
    import pandas as pd

    from afi_search.model import Model


class Study(stored.Study):
    """A study in its folder: what was tried, and all that can be done with it.

    >>> study = Study.open("studies/reference/resnet20-digits")
    >>> study  # doctest: +ELLIPSIS
    <Study resnet20-digits in ...: 8 pruned, 4 complete; 2 on the front>
    >>> study.front()[["accuracy", "macs"]].round(3).values.tolist()
    [[0.986, 8434672.0], [0.993, 13744736.0]]
    >>> print(study.explain(3).splitlines()[-1])
    It was pruned after 4 of 6 epochs.

    What trains, writes or needs checkpoints:

    >>> study.report()  # doctest: +SKIP
    >>> study.add_trials(20)  # doctest: +SKIP
    >>> study.confirm(seeds=3)  # doctest: +SKIP
    >>> study.model(7).to("cuda").features(images)  # doctest: +SKIP
    >>> study.promote(data="imagenet", architectures=["resnet50(B-r16)"])  # doctest: +SKIP
    >>> study.prune()  # doctest: +SKIP
    """

    def explain(self, number: int) -> str:
        """Say, a line a decision, why a trial was proposed, kept or stopped.

        Raises:
            LedgerError: there is no trial of that number.
        """
        from afi_search.search.explain import explain

        return "\n".join(explain(self.ledger.find(number)))

    def report(self) -> list[Path]:
        """Write the front, the trials and a page of both into the folder; return the paths."""
        from afi_search.report.export import write_report
        from afi_search.report.page import write_page
        from afi_search.report.view import StudyView

        view = StudyView.of(self)
        return [*write_report(view, self.folder), write_page(view, self.folder)]

    def model(self, number: int) -> Model:
        """Return the network that a trial has trained, as far as its checkpoint goes.

        Raises:
            LedgerError: there is no trial of that number.
            NoCheckpoint: the trial's weights are not kept.
        """
        from afi_search.model.from_checkpoint import trial_model

        self.ledger.find(number)
        return trial_model(self, number)

    def extract(self, architecture: Architecture | str, *, data: str | None = None) -> Model:
        """Return an architecture with the weights that it inherits from the study's supernet.

        Args:
            architecture: one of the space's.
            data: the folder of the data sets, before the study's own.

        Raises:
            NoCheckpoint: the study has trained no supernet, or the supernet's weights are not kept.
            SupernetError: the supernet does not hold the architecture.
            DataUnavailable, DataCorrupt: the data set, to calibrate on, cannot be read.
        """
        from afi_search.model.from_checkpoint import inherited_model

        return inherited_model(self, architecture, data=data)

    def add_trials(
        self,
        count: int,
        *,
        data: str | None = None,
        address: str | None = None,
        listener: Listener | None = None,
    ) -> None:
        """Resume the search with so many trials more than it was to have.

        Args:
            count: of trials, at least 1.
            data, address, listener: as for `run_study`.

        Raises:
            Interrupted, UserError: for the reasons for which `run_study` raises them.
        """
        from afi_search.device import describe_device

        if count < 1:
            raise UserError(f"add_trials: count must be at least 1, and is {count}")
        search = self.file.space.search
        grown = search.given(trials=search.trials + count)
        space = self.file.space.model_copy(update={"search": grown})
        asked = replace(self.file, space=space, facts=gather_facts(_command(), describe_device()))
        source = self.folder / STUDY_FILE
        study = _search(self.folder, asked, source, data, address, listener or Listener())
        self.file, self.ledger = study.file, study.ledger

    def confirm(
        self,
        *,
        seeds: int | None = None,
        top: int | None = None,
        architectures: Sequence[Architecture | str] = (),
        data: str | None = None,
        address: str | None = None,
        checkpoints: str | None = None,
        listener: Listener | None = None,
    ) -> pd.DataFrame:
        """Train the front again, by the recipe of `confirm:` with several seeds, and test it.

        What is not given is as the space file's `confirm` section says.

        Args:
            seeds: trainings of each architecture, at least 2.
            top: only so many of the front, the most accurate.
            architectures: what to confirm instead of the front.
            data, address, checkpoints, listener: as for `run_study`.

        Returns:
            One row an architecture: its mean accuracies (0 to 1) on test and validation images with
            95 % intervals, and a verdict, as `afi_search.promote.significance.verdicts` gives.

        Raises:
            UserError: there is nothing to confirm, or it was begun with other settings before.
            Interrupted: a person stopped the run, with Ctrl-C or SIGTERM.
        """
        from afi_search.promote.confirm import confirm_study

        return confirm_study(
            self,
            architectures,
            seeds=seeds,
            top=top,
            data=data,
            address=address,
            checkpoints=checkpoints,
            listener=listener,
        )

    def promote(
        self,
        data: str | Path | None = None,
        *,
        recipe: str | Path | None = None,
        top: int | None = None,
        architectures: Sequence[Architecture | str] = (),
        pretrained: str | Path | None = None,
        classes: int | None = None,
        loader: str | None = None,
        skip_broken: bool = False,
        name: str | None = None,
        checkpoints: str | None = None,
        workers: int | None = None,
        address: str | None = None,
        listener: Listener | None = None,
    ) -> None:
        """Train the winners on ImageNet, or resume that, and write models into `promote/`.

        What is not given is as the space file's `promote` section says.

        Args:
            data: ImageNet's folder, with train/CLASS and val/CLASS.
            recipe: `paper`, `modern` or a recipe file.
            top: how many winners, the most accurate first.
            architectures: what to train instead of the winners.
            pretrained: torchvision's weights of the plain backbone, a file.
            classes: folders of classes that there must be.
            loader: of the images: `torchvision`, or `dali`, which decodes on the GPU.
            skip_broken: leave out images that are broken, found now or in training.
            name: of the promotion's folder, for one architecture.
            checkpoints: folder or fsspec URL; the study's folder otherwise.
            workers: processes; all GPUs, or one CPU process otherwise.
            address: of a Ray cluster to join.
            listener: hears of the progress.

        Raises:
            UserError: the data, the recipe or the checkpoints are not what they should be.
            Interrupted: a person stopped the training, with Ctrl-C.
        """
        from afi_search.promote.promotion import promote_study

        try:
            promote_study(
                self.folder,
                architectures,
                data=data,
                recipe=recipe,
                top=top,
                pretrained=pretrained,
                classes=classes,
                loader=loader,
                skip_broken=skip_broken,
                name=name,
                checkpoints=checkpoints,
                workers=workers,
                address=address,
                listener=listener,
            )
        except KeyboardInterrupt:
            raise stored.Interrupted(self) from None

    def prune(self) -> int:
        """Delete the checkpoints that nothing needs, the study's and its confirmation's.

        Those of the front, of trials that have not ended and of promotions stay.

        Returns:
            The bytes that are free now.

        Raises:
            StudyError, StorageError: a driver is at work on a part of the study.
        """
        from afi_search.promote.confirm import prune_study

        return prune_study(self)


def run_study(
    space: str | Path,
    *,
    preset: str = AUTO,
    name: str | None = None,
    studies: str | Path = "studies",
    data: str | None = None,
    address: str | None = None,
    storage: str = JOURNAL,
    checkpoints: str | None = None,
    settings: Mapping[str, Any] | None = None,
    loggers: Sequence[str] = (),
    listener: Listener | None = None,
) -> Study:
    """Search a space, or resume the study that is there, and return it when it is complete.

    Prints nothing; a `Listener` hears of the progress.

    Args:
        space: the space file, or the name of one that comes with the package.
        preset: one of the file's; `auto`: `short` with a CUDA device, `smoke` without; `none`.
        name: of the study; backbone-data-preset otherwise.
        studies: the folder of all studies.
        data: the folder of the data sets, before the file's and AFI_SEARCH_DATA.
        address: of a Ray cluster to join, `auto` finds it; Ray is started here otherwise.
        storage: of the ledger: `journal`, `sqlite` or postgresql://USER@HOST/DATABASE.
        checkpoints: folder or fsspec URL that all machines reach; the study's folder otherwise.
        settings: keys of the space file, before it and its preset: {"search.trials": 20}.
        loggers: `tensorboard`, `mlflow`, `wandb` (offline): each writes into the study's folder.
        listener: hears of the progress.

    Raises:
        Interrupted: a person stopped the run; the same call resumes the study.
        UserError: the space file, the data, the study that is there or the machine is not as it
            should be; the message says what would be right.

    >>> study = run_study("spaces/resnet.yaml", preset="smoke")  # doctest: +SKIP
    >>> run_study("resnt")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    afi_search.space.loading.SpaceFileError: resnt: there is no such file. Did you mean 'resnet...
    """
    from afi_search.device import describe_device
    from afi_search.search.prepare import choose_preset, settle_data
    from afi_search.space.loading import SpaceDocument
    from afi_search.space.recipe import read_recipe
    from afi_search.study.checkpoint_location import check_url

    listener = listener or Listener()
    document = SpaceDocument.read(space)
    chosen = choose_preset(document, preset, listener)
    loaded = document.resolve(chosen, settings)
    if loaded.promote is not None:
        read_recipe(loaded.promote.recipe)
    file = settle_data(loaded, data, listener)
    if name is not None and file.data.name != loaded.data.name:
        name = f"{name}-{file.data.name}"
    asked = StudyFile(
        name=study_name(file, chosen) if name is None else name,
        preset=chosen or "",
        note=document.notes.get(chosen or "", ""),
        space=file,
        facts=gather_facts(_command(), describe_device()),
        storage=check_storage(storage),
        checkpoints=check_url(checkpoints),
        ledger=name or "",
    )
    folder = Path(studies) / asked.name
    return _search(folder, asked, document.path, data, address, listener, loggers)


def _search(
    folder: Path,
    asked: StudyFile,
    source: Path,
    data: str | None,
    address: str | None,
    listener: Listener,
    loggers: Sequence[str] = (),
) -> Study:
    """Create or resume a study and run its trials; `source` is the file that messages name."""
    from afi_search.cost import CostTable
    from afi_search.engine.loggers import find_loggers
    from afi_search.engine.ray_session import EngineError, RaySession
    from afi_search.search.prepare import measure_costs, require_feasible
    from afi_search.search.proposer import Proposer
    from afi_search.search.warm_start import evidence, read_other
    from afi_search.space import Space

    space, made = Space(asked.space), find_loggers(loggers)
    with RaySession(address, listener.engine_lost) as session:
        if not has_study(folder):  # there is something to train: Ray starts while costs are counted
            read_other(space.file)
            session.begin()
        costs = measure_costs(space, listener, CostTable.read(folder))
        require_feasible(source, costs)
        listener.space_counted(space.size, costs.feasible)
        with Study.begin(folder, asked) as study:
            from afi_search.engine.run_study import Run, run_trials
            from afi_search.engine.supernet import audit_scores, inherit

            costs.table.write(folder)
            run, inherited = Run(session, data, listener), None
            try:
                if space.file.search.strategy != "scratch":
                    inherited = inherit(study, costs, run, asked.checkpoints)
                known = evidence(study, space, costs)
                proposer = Proposer(space, costs, study.file.ledger, inherited, known)
                run_trials(study, proposer, run, retention=study.retention(), loggers=made)
            except EngineError as error:
                error.study = study
                raise
            if inherited is not None:
                audit_scores(study, run)
    return study


def _command() -> str:
    """Return the command line of this process, without its interpreter's folder."""
    program, *arguments = sys.orig_argv
    return shlex.join([Path(program).name, *arguments])
