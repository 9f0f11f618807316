"""CIFAR's files in every state, on a small data set of the same form."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import socket
import tarfile
import threading
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from afi_search import data
from afi_search.data import cifar
from afi_search.registry import DATASETS
from afi_search.space.schema import Data

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)


def pickled(images: np.ndarray) -> bytes:
    labels = list(range(len(images)))
    return pickle.dumps({"data": images.reshape(len(images), -1), "fine_labels": labels})


FILES = {
    "train": pickled(IMAGES),
    "test": pickled(IMAGES[:3]),
    "meta": pickle.dumps({"fine_label_names": [f"class {i}" for i in range(7)]}),
}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"tiny-python/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = packed(FILES)


TINY = cifar.Cifar(
    "tiny",
    "http://127.0.0.1:1/tiny-python.tar.gz",
    md5(ARCHIVE),
    "tiny-python",
    *({name: md5(FILES[name])} for name in ("train", "test", "meta")),
)
"""CIFAR-100 with ten images."""


@dataclass
class Answer:
    """What the server sends."""

    body: bytes = ARCHIVE
    claimed_length: int | None = None
    status: int = 200
    requests: int = 0


@pytest.fixture
def server(monkeypatch):
    answer = Answer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer.requests += 1
            self.send_response(answer.status)
            length = answer.claimed_length or len(answer.body)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *arguments):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{listener.server_port}"
    monkeypatch.setattr(TINY, "url", f"{address}/tiny-python.tar.gz")
    yield answer
    listener.shutdown()
    listener.server_close()


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Make the small data set known as `tiny`."""
    every = {name: DATASETS.get(name) for name in DATASETS.names}
    monkeypatch.setattr(DATASETS, "_entries", every)
    channels = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    cifar.register_cifar(TINY, "a b c d e f g", **channels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the whole data set."""
    base = tmp_path / "data" / "tiny-python"
    base.mkdir(parents=True)
    for name, content in FILES.items():
        (base / name).write_bytes(content)
    return tmp_path / "data"


def content_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


WHOLE = ["tiny-python", "tiny-python/meta", "tiny-python/test", "tiny-python/train"]


def test_images_and_labels_arrive_as_they_were_pickled(folder):
    tiny = data.load("tiny", folder, download=False)

    expected = torch.from_numpy(IMAGES).permute(0, 2, 3, 1)
    assert torch.equal(tiny.train.images, expected)
    assert tiny.train.images.is_contiguous()
    assert tiny.train.labels.tolist() == list(range(7))
    assert torch.equal(tiny.test.images, expected[:3])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-20]), id="cut short"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"<html>log in</html>"), id="html"),
        pytest.param(lambda path: path.write_bytes(pickled(IMAGES[:2])), id="foreign"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="folder"),
    ],
)
def test_a_wrong_file_is_named_and_left_alone(folder, server, name, damage):
    path = folder / "tiny-python" / name
    damage(path)
    before = None if path.is_dir() else path.read_bytes()

    with pytest.raises(data.DataCorrupt, match=str(path)):
        data.locate("tiny", folder)

    assert path.is_dir() if before is None else path.read_bytes() == before
    assert server.requests == 0


def test_an_unreadable_file_is_named(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cifar, "file_md5", refuse)
    with pytest.raises(data.DataCorrupt, match="train cannot be read: Permission denied"):
        data.locate("tiny", folder)


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "tiny-python").write_text("<html>")

    with pytest.raises(data.DataCorrupt, match="tiny-python should be a folder"):
        data.locate("tiny", tmp_path)


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_reader_of_a_damaged_file_names_it_too(folder, name):
    path = folder / "tiny-python" / name
    path.write_bytes(path.read_bytes()[:20])

    with pytest.raises(data.DataCorrupt, match="tiny-python"):
        data.read_data(Data(name="tiny"), folder)


def test_a_reader_never_downloads(tmp_path, server):
    with pytest.raises(data.DataUnavailable, match=str(tmp_path)):
        data.read_data(Data(name="tiny"), tmp_path)

    assert server.requests == 0


def test_a_missing_data_set_is_downloaded_and_nothing_else_is_left(tmp_path, server):
    folder = tmp_path / "new" / "data"

    assert data.locate("tiny", folder) == folder

    assert content_of(folder) == WHOLE
    assert len(data.load("tiny", folder).train) == 7
    assert server.requests == 1


def test_only_missing_files_are_put_in_place(folder, server):
    (folder / "tiny-python" / "meta").unlink()
    kept = (folder / "tiny-python" / "train").stat().st_ino

    data.locate("tiny", folder)

    assert content_of(folder) == WHOLE
    assert (folder / "tiny-python" / "train").stat().st_ino == kept


def test_several_drivers_at_once_leave_one_whole_data_set(tmp_path, server):
    failures = []

    def start():
        try:
            data.locate("tiny", tmp_path / "data")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    assert content_of(tmp_path / "data") == WHOLE


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(body=ARCHIVE[:100], claimed_length=len(ARCHIVE)), "not the archive"),
        (Answer(body=b"<html>log in</html>"), "not the archive"),
        (Answer(status=404), "404"),
    ],
    ids=["cut short", "html", "not found"],
)
def test_a_failed_download_says_why_and_leaves_nothing(tmp_path, server, answer, reason):
    vars(server).update(vars(answer))
    folder = tmp_path / "data"

    with pytest.raises(data.DataUnavailable, match=reason) as caught:
        data.locate("tiny", folder)

    assert str(folder) in str(caught.value)
    assert not folder.exists()


def test_an_archive_with_wrong_files_in_it_is_refused(tmp_path, server, monkeypatch):
    server.body = packed({**FILES, "train": pickled(IMAGES[:2])})
    monkeypatch.setattr(TINY, "md5", md5(server.body))

    with pytest.raises(data.DataUnavailable, match="has no good train"):
        data.locate("tiny", tmp_path / "data")


def test_an_archive_copied_there_by_hand_is_unpacked_without_network(tmp_path, server):
    (tmp_path / TINY.filename).write_bytes(ARCHIVE)

    data.locate("tiny", tmp_path, download=False)

    assert content_of(tmp_path) == sorted([*WHOLE, TINY.filename])
    assert server.requests == 0


def test_a_cut_short_archive_is_named(tmp_path, server):
    (tmp_path / TINY.filename).write_bytes(ARCHIVE[:-5])

    with pytest.raises(data.DataCorrupt, match=TINY.filename):
        data.locate("tiny", tmp_path)


def test_without_network_the_folder_and_the_reason_are_told(tmp_path):
    with pytest.raises(data.DataUnavailable, match=r"Connection refused") as caught:
        data.locate("tiny", tmp_path / "data")

    assert f"not in {tmp_path / 'data'}" in str(caught.value)
    assert "AFI_SEARCH_DATA" in str(caught.value)


def test_the_folder_itself_given_instead_of_its_parent_is_hinted_at(folder):
    with pytest.raises(data.DataUnavailable, match="give the one that holds it"):
        data.locate("tiny", folder / "tiny-python", download=False)


def test_a_network_that_swallows_everything_does_not_hang(tmp_path, monkeypatch):
    asked = threading.Event()

    def hang(*arguments, **options):
        asked.set()
        threading.Event().wait()

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    monkeypatch.setattr(cifar, "CONNECT_SECONDS", 0.2)

    with pytest.raises(data.DataUnavailable, match="no connection within"):
        data.locate("tiny", tmp_path)
    assert asked.is_set()


@pytest.mark.parametrize(("sent", "reason"), [(0, "no connection"), (500, "broke off: timed out")])
def test_a_server_that_falls_silent_does_not_hang(tmp_path, monkeypatch, sent, reason):
    listener = socket.create_server(("127.0.0.1", 0))
    answers = []

    def accept():
        connection, _ = listener.accept()
        if sent:
            head = b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n"
            connection.sendall(head + bytes(sent))
        answers.append(connection)

    threading.Thread(target=accept, daemon=True).start()
    monkeypatch.setattr(
        TINY, "url", f"http://127.0.0.1:{listener.getsockname()[1]}/tiny-python.tar.gz"
    )
    monkeypatch.setattr(cifar, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(cifar, "STALL_SECONDS", 0.3 if sent else 60)

    with pytest.raises(data.DataUnavailable, match=reason):
        data.locate("tiny", tmp_path / "data")

    assert not (tmp_path / "data").exists()
    answers[0].close()
    listener.close()


def test_a_disk_that_cannot_be_written_is_the_reason(tmp_path, server):
    (tmp_path / "file").write_text("")

    with pytest.raises(data.DataUnavailable, match=r"Not a directory|File exists"):
        data.locate("tiny", tmp_path / "file")


@pytest.mark.parametrize("theirs", [CIFAR10, CIFAR100])
def test_files_are_those_that_torchvision_knows(theirs):
    ours = getattr(cifar, theirs.__name__)
    assert (ours.url, ours.md5, ours.base) == (theirs.url, theirs.tgz_md5, theirs.base_folder)
    assert [*ours.train.items()] == list(map(tuple, theirs.train_list))
    assert [*ours.test.items()] == list(map(tuple, theirs.test_list))
    assert ours.other == {theirs.meta["filename"]: theirs.meta["md5"]}


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(data.DataUnavailable, match="data_batch_1, data_batch_2"):
        data.locate("cifar10", tmp_path, download=False)


def test_the_real_cifar100_is_whole(cifar100):
    assert cifar100.train.images.shape == (50_000, 32, 32, 3)
    assert torch.bincount(cifar100.train.labels).tolist() == [500] * 100
    assert torch.bincount(cifar100.test.labels).tolist() == [100] * 100
    assert cifar100.train.labels[:5].tolist() == [19, 29, 0, 11, 1]

    values = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(3):
        shares = torch.bincount(cifar100.train.images[..., channel].flatten(), minlength=256)
        shares = shares.double() / shares.sum()
        mean = (shares * values).sum()
        deviation = (shares * (values - mean).square()).sum().sqrt()
        assert abs(mean - cifar100.spec.mean[channel]) < 1e-4
        assert abs(deviation - cifar100.spec.std[channel]) < 1e-4


def test_the_classes_are_called_as_in_the_file(cifar100_folder):
    with (cifar100_folder / "cifar-100-python" / "meta").open("rb") as stream:
        names = pickle.load(stream)["fine_label_names"]
    source = data.dataset_spec("cifar100")
    assert [source.class_name(label) for label in range(100)] == [
        name.replace("_", " ") for name in names
    ]


def test_every_class_has_a_name():
    assert len(set(data.dataset_spec("cifar10").class_names)) == 10
    assert data.dataset_spec("digits").class_name(7) == "7"


def test_a_cifar10_file_among_cifar100s_is_named(cifar100_folder, tmp_path):
    base = tmp_path / "cifar-100-python"
    base.mkdir()
    for name in ("train", "test"):
        (base / name).symlink_to(cifar100_folder / "cifar-100-python" / name)
    batch = {"data": IMAGES.reshape(7, -1), "labels": [0] * 7, "batch_label": "training batch 1"}
    (base / "meta").write_bytes(pickle.dumps(batch))

    with pytest.raises(data.DataCorrupt, match="meta is cut short, damaged or of another data"):
        data.locate("cifar100", tmp_path)


def test_a_download_tells_of_itself_in_the_log_alone(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("afi_search.data"), "handlers", [])  # the command line's
    archive = tmp_path / "archive"
    archive.write_bytes(bytes(25_000_000))
    caplog.set_level("INFO", "afi_search.data")
    cifar.download(archive.as_uri(), tmp_path / "copy", md5(archive.read_bytes()), "tiny")

    assert len(caplog.messages) == 2
    assert all(message.startswith("Downloading tiny: ") for message in caplog.messages)
    assert capfd.readouterr() == ("", "")
