from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from afi_search.train import checkpoint
from afi_search.train.checkpoint import CheckpointWarning, CorruptCheckpoint, load, load_file, save
from tests.typed import there


def state(epoch: int) -> dict[str, Any]:
    weights = torch.arange(400.0).view(20, 20) + epoch
    return {"epoch": epoch, "model": {"weight": weights}, "history": [{"accuracy": 0.5}], "x": None}


@pytest.fixture(params=["local", "file", "memory"])
def url(request, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path / "deep" / "trial")
    if request.param == "file":
        return f"file://{tmp_path}/trial"
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket/trial"


def files(url: str) -> list[str]:
    filesystem, folder = fsspec.core.url_to_fs(url)
    return sorted(path.rsplit("/", 1)[-1] for path in filesystem.ls(folder, detail=False))


def test_what_is_saved_is_loaded(url):
    written = save(state(3), url)

    found = load(url)
    assert found is not None
    assert torch.equal(found.pop("model")["weight"], state(3)["model"]["weight"])
    assert found == {"epoch": 3, "history": [{"accuracy": 0.5}], "x": None}
    assert written.endswith("trial/epoch-000003.pt")


def test_no_checkpoint_is_none(url):
    assert load(url) is None


def test_the_newest_is_loaded_and_the_last_two_are_kept(url):
    for epoch in range(1, 13):
        save(state(epoch), url)

    assert there(load(url))["epoch"] == 12
    assert files(url) == ["epoch-000011.pt", "epoch-000012.pt"]


def damage(url: str, epoch: int, how) -> str:
    filesystem, folder = fsspec.core.url_to_fs(url)
    path = f"{folder}/epoch-{epoch:06d}.pt"
    filesystem.pipe_file(path, how(filesystem.cat_file(path)))
    return path


def flip_a_byte_of_the_weights(content: bytes) -> bytes:
    position = content.index(torch.arange(400.0).add(2).numpy().tobytes()[:64]) + 8
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(lambda content: content[:-1], id="last byte missing"),
        pytest.param(lambda content: content[: len(content) // 2], id="half"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: bytes(len(content)), id="zeros"),
        pytest.param(lambda content: b"<html></html>", id="html"),
        pytest.param(flip_a_byte_of_the_weights, id="one bit"),
    ],
)
def test_a_damaged_newest_is_named_and_the_one_before_is_taken(url, how):
    save(state(1), url)
    save(state(2), url)
    path = damage(url, 2, how)

    with pytest.raises(CorruptCheckpoint, match=path):
        load_file(fsspec.core.url_to_fs(url)[0].unstrip_protocol(path))
    with pytest.warns(CheckpointWarning, match=f"{path}.*Going on from epoch 1"):
        assert there(load(url))["epoch"] == 1

    save(state(2), url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert there(load(url))["epoch"] == 2


def test_where_none_can_be_read_each_is_named(url):
    save(state(1), url)
    save(state(2), url)
    paths = [damage(url, epoch, lambda content: content[:100]) for epoch in (1, 2)]

    with pytest.raises(CorruptCheckpoint) as caught:
        load(url)

    assert all(path in str(caught.value) for path in paths)


def test_after_starting_again_no_later_epoch_is_left(url):
    save(state(5), url)
    save(state(6), url)

    save(state(1), url)

    assert files(url) == ["epoch-000001.pt"]
    assert there(load(url))["epoch"] == 1


def test_a_file_of_another_program_is_refused(tmp_path):
    torch.save({"epoch": 1, "model": {}}, tmp_path / "epoch-000001.pt")
    torch.save([1, 2], tmp_path / "other.pt")

    for name in ("epoch-000001.pt", "other.pt"):
        with pytest.raises(CorruptCheckpoint, match=f"{name} was not written by afi_search"):
            load_file(str(tmp_path / name))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    path = tmp_path / "epoch-000001.pt"
    torch.save({"format": checkpoint.FORMAT, "epoch": Harmful()}, path)

    with pytest.raises(CorruptCheckpoint, match=str(path)):
        load(str(tmp_path))
    assert not (tmp_path / "harm").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CorruptCheckpoint, match=r"none\.pt is not a file"):
        load_file(str(tmp_path / "none.pt"))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_passed_over(tmp_path, make):
    save(state(1), str(tmp_path))
    make(tmp_path / "epoch-000002.pt")

    with pytest.warns(CheckpointWarning, match=r"epoch-000002\.pt is not a file"):
        assert there(load(str(tmp_path)))["epoch"] == 1


@pytest.mark.parametrize("interrupted", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_epochs_before_it(tmp_path, monkeypatch, interrupted):
    save(state(1), str(tmp_path))
    save(state(2), str(tmp_path))

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop) if interrupted == "fsync" else patch.setattr(
            Path, "replace", stop
        )
        with pytest.raises(KeyboardInterrupt):
            save(state(3), str(tmp_path))

    assert there(load(str(tmp_path)))["epoch"] == 2
    save(state(3), str(tmp_path))
    assert files(str(tmp_path)) == ["epoch-000002.pt", "epoch-000003.pt"]


def test_a_storage_that_does_not_answer_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    save(state(1), str(tmp_path))

    def refuse(*arguments, **options):
        raise ConnectionError("no answer")

    monkeypatch.setattr(fsspec.filesystem("file").__class__, "cat_file", refuse)
    with pytest.raises(ConnectionError):
        load(str(tmp_path))


def test_deleting_takes_checkpoints_only(url):
    save(state(1), url)
    filesystem, folder = fsspec.core.url_to_fs(url)
    filesystem.pipe_file(f"{folder}/note.txt", b"mine")

    checkpoint.delete(url)
    assert files(url) == ["note.txt"]
    assert load(url) is None

    filesystem.rm_file(f"{folder}/note.txt")
    checkpoint.delete(url)
    assert not filesystem.exists(folder)
    checkpoint.delete(url)
