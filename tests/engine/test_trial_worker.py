from __future__ import annotations

import copy
import pickle
import re
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import BatchNorm2d

from afi_search.cost import SpaceCosts
from afi_search.data import Dataset, Split, split
from afi_search.data.tensor_source import pad_images, padded
from afi_search.engine.capacity import Capacity
from afi_search.engine.trial_worker import LostGpu, TrialConfig, TrialWorker
from afi_search.nn import Supernet
from afi_search.space import Architecture, Recipe, Space
from afi_search.space.schema import SpaceFile
from afi_search.train import Trainer, load, save, trial_trainer
from afi_search.train.supernet import inherited_accuracy
from tests.study.test_operations import paths, put
from tests.typed import part, there

RECIPE = Recipe(epochs=3, batch_size=16, lr=0.05, precision="fp32")
ALONE = Capacity(1, threads=1, gpus=0.0)


@pytest.fixture
def data(digits: Dataset) -> Split:
    return padded(split(digits, train_subset=32, validation_subset=20), RECIPE.pad)


def begin(folder: Path, data: Split, recipe: Recipe = RECIPE, **config: Any) -> TrialWorker:
    """A worker as Ray makes it, without Ray; the driver has made the folder."""
    folder.mkdir(exist_ok=True)
    worker = TrialWorker.__new__(TrialWorker)
    common = TrialConfig(SpaceFile(recipe=recipe), str(folder), ALONE)
    worker.setup({"number": 7, "architecture": "resnet20", "seed": 3, **config}, common, data)
    return worker


def test_each_step_is_an_epoch_with_a_checkpoint(tmp_path: Path, data: Split) -> None:
    torch.backends.cudnn.benchmark = False
    worker = begin(tmp_path, data)
    results = [worker.step() for _ in range(3)]

    assert torch.backends.cudnn.benchmark, "convolutions of fixed shapes are not measured on GPUs"
    assert [len(result["accuracies"]) for result in results] == [1, 2, 3]
    assert results[2]["accuracies"][:2] == results[1]["accuracies"]
    assert results[2]["number"] == 7
    assert there(load(str(tmp_path / "00007")))["epoch"] == 3


def test_a_second_worker_reports_what_is_there_and_trains_only_the_rest(
    tmp_path: Path, data: Split
) -> None:
    whole = begin(tmp_path / "whole", data)
    expected = [whole.step() for _ in range(3)][-1]["accuracies"]
    begin(tmp_path / "broken", data).step()
    before = there(load(str(tmp_path / "broken" / "00007")))

    successor = begin(tmp_path / "broken", data)
    resumed = successor.step()
    assert resumed["accuracies"] == expected[:1]
    assert there(load(str(tmp_path / "broken" / "00007")))["history"] == before["history"]
    successor.step()
    assert successor.step()["accuracies"] == expected
    one, other = (
        there(load(str(tmp_path / which / "00007")))["model"] for which in ("whole", "broken")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_worker_that_is_used_again_gives_what_a_new_one_gives(
    tmp_path: Path, data: Split
) -> None:
    used = begin(tmp_path / "used", data, number=1, architecture="resnet20(B-r16)")
    used.step()
    assert used.reset_config({"number": 7, "architecture": "resnet20(base-r4)", "seed": 3})
    new = begin(tmp_path / "new", data, architecture="resnet20(base-r4)")

    assert used.step()["accuracies"] == new.step()["accuracies"]


def test_a_loss_that_is_no_number_is_a_result_with_the_reason(tmp_path: Path, data: Split) -> None:
    worker = begin(tmp_path, data, RECIPE.model_copy(update={"lr": 1e30}))
    result = worker.step()

    assert result["failed"].startswith("loss became")
    assert "epoch 1" in result["failed"]


def test_what_goes_wrong_leaves_the_worker_fit_for_the_next_trial(
    tmp_path: Path, data: Split
) -> None:
    worker = begin(tmp_path, data, architecture="resnet20(base-r4-nonsense)")
    result = worker.step()

    assert "nonsense" in result["failed"]
    assert "Traceback" in result["details"]
    worker.reset_config({"number": 8, "architecture": "resnet20", "seed": 3})
    assert len(worker.step()["accuracies"]) == 1


def test_a_study_that_was_moved_is_not_made_again_at_its_old_place(
    tmp_path: Path, data: Split
) -> None:
    worker = begin(tmp_path / "checkpoints", data)
    worker.step()
    (tmp_path / "checkpoints").rename(tmp_path / "moved")

    assert f"No such file or directory: '{tmp_path}/checkpoints'" in worker.step()["broken"]
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def test_a_booked_gpu_that_pytorch_does_not_see_stops_the_study(
    tmp_path: Path, data: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    common = TrialConfig(SpaceFile(recipe=RECIPE), str(tmp_path), Capacity(1, threads=1, gpus=0.5))
    worker = TrialWorker.__new__(TrialWorker)
    worker.setup({"number": 7, "architecture": "resnet20", "seed": 3}, common, data)

    result = worker.step()

    assert re.match(r"a GPU of .+ is booked and cannot be used: .", result["broken"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel errors might"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_fault_of_the_gpu_ends_the_worker_and_not_the_trial(
    tmp_path: Path, data: Split, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    worker = begin(tmp_path, data)
    expected = worker.step()["accuracies"]

    def fall_off_the_bus(trainer: Trainer, heard: object) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(Trainer, "run_epoch", fall_off_the_bus)
        with pytest.raises(LostGpu, match=re.escape(str(error).splitlines()[0])):
            worker.step()

    assert begin(tmp_path, data).step()["accuracies"] == expected


def test_too_little_memory_of_a_gpu_is_the_trial_s_own(
    tmp_path: Path, data: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_too_much(trainer: Trainer, heard: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(Trainer, "run_epoch", take_too_much)

    assert "out of memory" in begin(tmp_path, data).step()["failed"]


def test_unreadable_checkpoints_mean_beginning_again(tmp_path: Path, data: Split) -> None:
    expected = begin(tmp_path, data).step()["accuracies"]
    for file in (tmp_path / "00007").iterdir():
        file.write_bytes(file.read_bytes()[:1000])

    with pytest.warns(UserWarning, match="begins again"):
        assert begin(tmp_path, data).step()["accuracies"] == expected


def test_shared_arrays_are_the_split(digits: Dataset, data: Split) -> None:
    original = split(digits, train_subset=32, validation_subset=20)
    again = pickle.loads(pickle.dumps(data))

    assert torch.equal(again.train.images, pad_images(original.train.images, RECIPE.pad))
    assert torch.equal(again.train.labels, original.train.labels)
    assert torch.equal(again.validation.images, original.validation.images)
    assert torch.equal(again.validation.labels, original.validation.labels)
    assert again.spec == original.spec


def test_a_checkpoint_of_another_training_stops_the_study_and_is_not_touched(
    tmp_path: Path, data: Split
) -> None:
    begin(tmp_path, data, architecture="resnet20(B-r16)").step()
    before = there(load(str(tmp_path / "00007")))
    told = begin(tmp_path, data).step()["broken"]

    assert told.startswith(f"{tmp_path}/00007 cannot be used: the checkpoint is of another")
    assert there(load(str(tmp_path / "00007")))["history"] == before["history"]


def test_what_is_no_checkpoint_of_a_trial_stops_the_study(tmp_path: Path, data: Split) -> None:
    save({"epoch": 1, "weights": torch.zeros(1)}, str(tmp_path / "00007"))

    assert "00007 cannot be used: the checkpoint has no " in begin(tmp_path, data).step()["broken"]


@pytest.mark.parametrize("each", [3, pytest.param(7, marks=pytest.mark.slow)])
def test_whatever_a_checkpoint_holds_it_is_used_or_stops_the_study(
    tmp_path: Path, data: Split, each: int
) -> None:
    """Each place takes some of the wrong values in turn, or all of them."""
    begin(tmp_path, data).step()
    (path,) = (tmp_path / "00007").iterdir()
    state = torch.load(path, weights_only=True)
    some = {**state, "model": dict([*state["model"].items()][:1]), "optimiser": {"state": {0: 0}}}
    some["history"] = dict(enumerate(state["history"]))
    wrong: tuple[Any, ...] = (None, 1.5, 10**30, "x", {"x": 1}, [], torch.zeros(3))
    worker, outcomes = begin(tmp_path, data), Counter[str]()
    values = cycle(wrong)
    for at in paths(some):
        for value in islice(values, each):
            torch.save(put(copy.deepcopy(state), at, value), path)
            worker.reset_config({"number": 7, "architecture": "resnet20", "seed": 3})
            (outcome,) = worker.step().keys() & {"accuracies", "broken", "failed"}
            assert outcome != "failed", (at, value)
            outcomes[outcome] += 1

    assert outcomes["broken"] > 7 * each and outcomes["accuracies"] > 1.4 * each


def test_a_folder_that_is_a_loop_of_links_stops_the_study(tmp_path: Path, data: Split) -> None:
    (tmp_path / "00007").symlink_to(tmp_path / "00007")

    assert f"{tmp_path}/00007" in begin(tmp_path, data).step()["broken"]


FILE = SpaceFile.model_validate(
    {
        "backbone": "resnet20",
        "stages": {"all": {"choice": ["off", "base-r4"]}},
        "data": {"name": "digits"},
        "recipe": RECIPE,
    }
)


@pytest.fixture(scope="module")
def heritage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a supernet of digits has learnt in no time."""
    torch.manual_seed(9)
    net = Supernet(Space(FILE))
    place = str(tmp_path_factory.mktemp("supernet"))
    save({"model": net.state_dict(), "epoch": 1}, place)
    return place


def heir(folder: Path, data: Split, heritage: str) -> TrialWorker:
    worker = TrialWorker.__new__(TrialWorker)
    common = TrialConfig(FILE, str(folder), ALONE, heritage=heritage)
    config = {"number": 7, "architecture": "resnet20(base-r4, off, off)", "seed": 3}
    worker.setup({**config, "inherits": True}, common, data)
    return worker


def test_a_trial_that_inherits_starts_with_the_calibrated_weights_of_the_supernet(
    tmp_path: Path, data: Split, heritage: str
) -> None:
    architecture, cpu = Architecture.parse("resnet20(base-r4, off, off)"), torch.device("cpu")
    inherit = inherited_accuracy(FILE, heritage, data, precision="fp32", device=cpu)
    network = inherit.network(architecture)
    assert not torch.equal(there(part(network, "bn1", BatchNorm2d).running_mean), torch.zeros(16))
    alone = trial_trainer(network, RECIPE, data, seed=3, device=cpu)
    expected = [alone.run_epoch().accuracy for _ in range(3)]

    worker = heir(tmp_path, data, heritage)
    worker.step()
    again = heir(tmp_path, data, heritage)  # another worker goes on
    results = [again.step() for _ in range(3)]
    assert results[-1]["accuracies"] == expected
    state = there(load(str(tmp_path / "00007")))
    assert state["trial"]["init"] == "inherited"
    ours = alone.model.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in state["model"].items())


def test_a_trial_that_inherits_from_nothing_waits(tmp_path: Path, data: Split) -> None:
    result = heir(tmp_path / "study", data, str(tmp_path / "gone")).step()
    assert "gone has no weights of the supernet" in result["broken"]


def test_a_worker_trains_a_supernet_as_a_trial_and_another_goes_on(
    tmp_path: Path, data: Split
) -> None:
    costs = SpaceCosts(Space(FILE), num_classes=10, image_size=32).table

    def worker(folder: str) -> TrialWorker:
        (tmp_path / folder).mkdir(exist_ok=True)
        common = TrialConfig(FILE, str(tmp_path / folder), ALONE, supernet=costs)
        made = TrialWorker.__new__(TrialWorker)
        made.setup({"number": 0, "architecture": "resnet20", "seed": 3}, common, data)
        return made

    whole = worker("whole")
    expected = [whole.step() for _ in range(3)][-1]["accuracies"]
    assert {"afi_images_per_second", "afi_epoch_seconds"} < {
        sample.name for sample in whole._samples()
    }
    worker("broken").step()
    successor = worker("broken")
    assert [successor.step() for _ in range(3)][-1]["accuracies"] == expected
    one, other = (
        there(load(str(tmp_path / which / "00000")))["model"] for which in ("whole", "broken")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
