"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), the "python version".

torchvision's reader is not used: to import it takes as long as PyTorch itself, and its downloader
has no timeout, so it hangs where a network swallows what is sent.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import tarfile
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from rich.filesize import decimal as size

from afi_search.data.dataset import (
    DataCorrupt,
    DatasetSpec,
    DataUnavailable,
    ImageSet,
    register_dataset,
)

_LOG = logging.getLogger(__name__)
_PART = 1 << 16
CONNECT_SECONDS = 8.0
STALL_SECONDS = 20.0


@dataclass
class Cifar:
    """One of the data sets: its archive, and names of the files in it to their MD5s."""

    name: str
    url: str
    md5: str
    base: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    other: Mapping[str, str]

    @property
    def filename(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def files(self) -> dict[str, str]:
        return {**self.train, **self.test, **self.other}

    def prepare(self, folder: Path, download: bool) -> None:
        """Check every file, and unpack or download the missing ones; as `locate` does.

        An archive that lies in `folder` already is taken instead of a download. A file that is
        there is never overwritten.
        """
        base = folder / self.base
        try:
            if base.exists() and not base.is_dir():
                raise DataCorrupt(
                    f"{self.name}: {base} should be a folder and is a file. Remove it."
                )
            missing = [file for file, md5 in self.files.items() if not self._has(base / file, md5)]
        except OSError as error:
            raise DataUnavailable(
                f"{self.name}: cannot look into {folder}: {error.strerror}."
            ) from error
        if not missing:
            return
        if not self._has(folder / self.filename, self.md5) and not download:
            raise self._unavailable(folder, missing, "it may not be downloaded here")
        made_here = not folder.exists()
        try:
            self._install(folder, missing)
        except (tarfile.TarError, EOFError, OSError) as error:
            if made_here:
                with suppress(OSError):
                    folder.rmdir()
            raise self._unavailable(folder, missing, str(error)) from error

    def read(self, folder: Path) -> tuple[ImageSet, ImageSet]:
        """Read the training and the test images, trusting files that `prepare` has checked."""
        missing = [file for file in self.files if not (folder / self.base / file).exists()]
        if missing:
            raise self._unavailable(folder, missing, "it is not on this machine")
        return self._images(folder, self.train), self._images(folder, self.test)

    def _images(self, folder: Path, files: Iterable[str]) -> ImageSet:
        import numpy as np
        import torch

        images: list[Any] = []
        labels: list[int] = []
        for path in (folder / self.base / file for file in files):
            try:
                with path.open("rb") as stream:
                    batch = pickle.load(stream, encoding="latin1")
                images.append(batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
                labels += batch["labels" if "labels" in batch else "fine_labels"]
            except Exception as error:
                raise DataCorrupt(f"{self.name}: cannot read {path}: {error}.") from error
        whole = np.ascontiguousarray(np.concatenate(images))
        return ImageSet(torch.from_numpy(whole), torch.tensor(labels))

    def _has(self, path: Path, md5: str) -> bool:
        """Whether a file is there; one that is not the right one is a DataCorrupt."""
        if not path.exists():
            return False
        if not path.is_file():
            raise DataCorrupt(f"{self.name}: {path} should be a file and is a folder. Remove it.")
        try:
            found = file_md5(path)
        except OSError as error:
            raise DataCorrupt(f"{self.name}: {path} cannot be read: {error.strerror}.") from error
        if found != md5:
            raise DataCorrupt(
                f"{self.name}: {path} is cut short, damaged or of another data set: its MD5 is "
                f"{found} and should be {md5} ({path.stat().st_size} bytes). Remove it, or copy it "
                f"again."
            )
        return True

    def _install(self, folder: Path, missing: list[str]) -> None:
        """Put the missing files in place, each complete and checked before it has its name."""
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".afi-search-") as scratch:
            archive = folder / self.filename
            if not archive.exists():
                archive = Path(scratch, self.filename)
                download(self.url, archive, self.md5, self.name)
            Path(scratch, self.base).mkdir()
            wanted = {f"{self.base}/{file}" for file in missing}
            with tarfile.open(archive) as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.name in wanted else None
                    if content is not None:
                        Path(scratch, member.name).write_bytes(content.read())
            (folder / self.base).mkdir(exist_ok=True)
            for file in missing:
                fresh = Path(scratch, self.base, file)
                if not fresh.exists() or file_md5(fresh) != self.files[file]:
                    raise OSError(f"{self.url} has no good {file}")
                fresh.replace(folder / self.base / file)

    def _unavailable(self, folder: Path, missing: list[str], reason: str) -> DataUnavailable:
        hint = (
            f" {folder} seems to be the data set's own folder: give the one that holds it."
            if folder.name == self.base
            else ""
        )
        return DataUnavailable(
            f"{self.name} is not in {folder} (looked in {folder / self.base} for "
            f"{', '.join(missing)}), and could not be downloaded: {reason}.{hint} Put "
            f"{self.filename} or its unpacked folder there, or name another folder with --data or "
            f"AFI_SEARCH_DATA."
        )


def file_md5(path: Path) -> str:
    """Return a file's MD5 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download(url: str, target: Path, md5: str, name: str) -> None:
    """Download `url` to the file `target`; the log of this module tells each tenth of it.

    An OSError says that there is no connection within CONNECT_SECONDS, that nothing came for
    STALL_SECONDS, that the disk is full, or that what came has another MD5.
    """
    response = _connect(url)
    total, done = getattr(response, "length", None) or 0, 0
    tenth = total // 10 or 10_000_000
    try:
        with response, target.open("wb") as file:
            while part := response.read(_PART):
                file.write(part)
                before, done = done, done + len(part)
                if before // tenth != done // tenth:
                    of = f" of {size(total)}" if total else ""
                    _LOG.info("Downloading %s: %s%s", name, size(done), of)
    except (OSError, HTTPException) as error:
        raise OSError(f"{url} broke off: {error}") from error
    if (found := file_md5(target)) != md5:
        raise OSError(
            f"{url} sent {target.stat().st_size} bytes that are not the archive (their MD5 is "
            f"{found} and should be {md5})"
        )


def _connect(url: str) -> Any:
    """Open `url`, or give up after CONNECT_SECONDS, also where name resolution hangs.

    A socket's timeout does not cover that, so a daemon thread calls, which may be left behind.
    """
    answer: Future[Any] = Future()

    def call() -> None:
        try:
            answer.set_result(urllib.request.urlopen(url, timeout=STALL_SECONDS))
        except Exception as error:
            answer.set_exception(error)

    Thread(target=call, daemon=True, name="afi-search-download").start()
    try:
        return answer.result(CONNECT_SECONDS)
    except TimeoutError:
        raise OSError(f"no connection within {CONNECT_SECONDS:.0f} seconds") from None
    except (OSError, HTTPException) as error:
        raise OSError(f"no connection to {url}: {error}") from error


CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100_CLASSES = """
    apple aquarium-fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach
    couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster
    house kangaroo keyboard lamp lawn-mower leopard lion lizard lobster man maple-tree
    motorcycle mountain mouse mushroom oak-tree orange orchid otter palm-tree pear
    pickup-truck pine-tree plain plate poppy porcupine possum rabbit raccoon ray road rocket
    rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
    sunflower sweet-pepper table tank telephone television tiger tractor train trout tulip
    turtle wardrobe whale willow-tree wolf woman worm
"""
"""In the order of the labels (fine labels); a model names its classes where no data set is."""

CIFAR10 = Cifar(
    "cifar10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    base="cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    other={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
)
CIFAR100 = Cifar(
    "cifar100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    base="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    other={"meta": "7973b15100ade9c7d40fb424638fde48"},
)


def register_cifar(cifar: Cifar, classes: str, **channels: Any) -> None:
    """Register one of the data sets; in its classes' names a hyphen stands for a space."""
    names = tuple(word.replace("-", " ") for word in classes.split())
    spec = DatasetSpec(
        cifar.name,
        num_classes=len(names),
        image_size=32,
        mirror_safe=True,
        train_images=50_000,
        validation=5000,
        class_names=names,
        **channels,
    )
    register_dataset(spec, cifar.read, cifar.prepare)


_CHANNELS10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
_CHANNELS100 = {"mean": (0.5071, 0.4865, 0.4409), "std": (0.2673, 0.2564, 0.2762)}
register_cifar(CIFAR10, CIFAR10_CLASSES, **_CHANNELS10)
register_cifar(CIFAR100, CIFAR100_CLASSES, **_CHANNELS100)
