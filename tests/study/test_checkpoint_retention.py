from __future__ import annotations

from pathlib import Path

import afi_search
from afi_search.search.conductor import Conductor
from afi_search.study import Ledger
from afi_search.study.checkpoint_location import trial_location
from afi_search.study.checkpoint_retention import CheckpointRetention, worth_keeping
from afi_search.train import save
from tests.search.studies import conductor_for, play, space_file


def checkpointed(folder: Path, number: int, epoch: int) -> None:
    save({"epoch": epoch}, trial_location(str(folder), number))


def on_disk(folder: Path) -> set[int]:
    return {int(path.name) for path in folder.iterdir()} if folder.exists() else set()


def played(folder: Path, place: Path, **search: object) -> tuple[Ledger, list[int]]:
    """A study by formula with real checkpoint folders; and how many there were at each epoch."""
    file = space_file(search={"trials": 20, **search})
    sizes: list[int] = []
    retention: CheckpointRetention
    ledger, conductor = conductor_for(
        file, folder, on_change=lambda trial: retention.changed(trial)
    )
    retention = CheckpointRetention(str(place), file.objectives, ledger.trials())

    def epoch_ends(number: int, epoch: int) -> None:
        checkpointed(place, number, epoch)
        sizes.append(len(on_disk(place)))

    play(conductor, on_epoch=epoch_ends)
    return ledger, sizes


def test_a_study_keeps_the_front_and_little_else(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    ledger, sizes = played(tmp_path, place)
    records = ledger.records()
    front = set(afi_search.front(records)["number"])

    assert len(records) == 20
    assert front <= on_disk(place)
    assert len(on_disk(place)) <= len(front) + 2
    assert max(sizes) < 20
    pruned = set(records.loc[records["state"] == "pruned", "number"])
    assert pruned
    assert not pruned & on_disk(place)


def test_with_accuracy_alone_the_front_over_macs_is_kept(tmp_path: Path) -> None:
    ledger, _ = played(tmp_path, tmp_path / "checkpoints")
    front = set(afi_search.front(ledger.records())["number"])

    assert len(front) > 1
    assert front <= worth_keeping(ledger.trials(), ["accuracy"])


def test_the_next_driver_deletes_what_a_killed_one_had_not(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    ledger, _ = played(tmp_path, place)
    kept = on_disk(place)
    for number in (*range(20), 77):
        checkpointed(place, number, 3)
    (place / "notes").mkdir()
    CheckpointRetention(str(place), ("accuracy", "macs"), ledger.trials())

    assert {int(path.name) for path in place.iterdir() if path.name != "notes"} == kept
    assert (place / "notes").is_dir()


def test_what_goes_on_is_kept_and_so_is_the_plain_backbone(tmp_path: Path) -> None:
    file = space_file(search={"trials": 3, "first": ["resnet20"], "pruner": {"name": "none"}})
    ledger, conductor = conductor_for(file, tmp_path)
    first = start(conductor)
    conductor.report(first, [0.1] * 9, 9.0)
    second, third = start(conductor), start(conductor)
    conductor.report(second, [0.9] * 9, 9.0)

    assert ledger.trial(first).user_attrs["architecture"] == "resnet20"
    assert worth_keeping(ledger.trials(), file.objectives) == {first, second, third}


def start(conductor: Conductor) -> int:
    assignment = conductor.next()
    assert assignment is not None
    return assignment.number
