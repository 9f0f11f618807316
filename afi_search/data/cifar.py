"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), the "python version", read by torchvision.

Its readers name every file and its MD5. Its downloader is not used: it has no timeout, so it hangs
where a network swallows what is sent.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tarfile
import urllib.request
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

from afi_search.data.dataset import (
    DataCorrupt,
    DatasetSpec,
    DataUnavailable,
    ImageSet,
    register_dataset,
)
from afi_search.formatting import size

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

_LOG = logging.getLogger(__name__)
_PART = 1 << 16
CONNECT_SECONDS = 8.0
STALL_SECONDS = 20.0


@dataclass(frozen=True)
class CifarFiles:
    """The files of one of the data sets, in its own folder below `folder`.

    `reader` is torchvision's class, which knows their names and MD5s.
    """

    name: str
    reader: type[CIFAR10]
    folder: Path

    def prepare(self, download: bool) -> None:
        """Check every file, and unpack or download the missing ones; as `locate` does.

        An archive that lies in `folder` already is taken instead of a download. A file that is
        there is never overwritten.
        """
        base, archive = (self.folder / n for n in (self.reader.base_folder, self.reader.filename))
        try:
            if base.exists() and not base.is_dir():
                raise DataCorrupt(
                    f"{self.name}: {base} should be a folder and is a file. Remove it."
                )
            files = self._checksums(self.folder).items()
            missing = [path for path, md5 in files if not self._is_whole(path, md5)]
        except OSError as error:
            raise DataUnavailable(
                f"{self.name}: cannot look into {self.folder}: {error.strerror}."
            ) from error
        if not missing:
            return
        if not self._is_whole(archive, self.reader.tgz_md5) and not download:
            raise self._unavailable(missing, "it may not be downloaded here")
        made_here = not self.folder.exists()
        try:
            self._install(missing)
        except (tarfile.TarError, EOFError, OSError) as error:
            if made_here:
                with suppress(OSError):
                    self.folder.rmdir()
            raise self._unavailable(missing, str(error)) from error

    def read(self) -> tuple[ImageSet, ImageSet]:
        """Read the training and the test images, trusting files that `prepare` has checked."""
        missing = [path for path in self._checksums(self.folder) if not path.exists()]
        if missing:
            raise self._unavailable(missing, "it is not on this machine")
        return self._images(train=True), self._images(train=False)

    def _images(self, *, train: bool) -> ImageSet:
        import torch

        unchecked = {"_check_integrity": lambda _: True}
        trusting: Any = type(self.reader.__name__, (self.reader,), unchecked)
        try:
            raw = trusting(str(self.folder), train=train)
            images = torch.from_numpy(raw.data).contiguous()
            labels = torch.tensor(raw.targets, dtype=torch.int64)
        except Exception as error:
            files = self.reader.train_list if train else self.reader.test_list
            base = self.folder / self.reader.base_folder
            names = ", ".join(str(base / file) for file, _ in files)
            raise DataCorrupt(f"{self.name}: cannot read {names}: {error}.") from error
        return ImageSet(images, labels)

    def _checksums(self, folder: Path) -> dict[Path, str]:
        """Return the MD5 of each file, by its path below `folder`."""
        base, meta = folder / self.reader.base_folder, self.reader.meta
        listed = [*self.reader.train_list, *self.reader.test_list, (meta["filename"], meta["md5"])]
        return {base / file: md5 for file, md5 in listed}

    def _is_whole(self, path: Path, md5: str) -> bool:
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

    def _install(self, missing: list[Path]) -> None:
        """Put the missing files in place, each complete and checked before it has its name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.folder, prefix=".afi-search-") as scratch:
            archive = self.folder / self.reader.filename
            if not archive.exists():
                archive = Path(scratch) / self.reader.filename
                download(self.reader.url, archive, self.reader.tgz_md5, self.name)
            fresh = self._checksums(Path(scratch))
            (Path(scratch) / self.reader.base_folder).mkdir()
            with tarfile.open(archive) as tar:
                for member in tar:
                    content, target = tar.extractfile(member), Path(scratch, member.name)
                    if content is not None and target in fresh:
                        with target.open("wb") as file:
                            shutil.copyfileobj(content, file)
            (self.folder / self.reader.base_folder).mkdir(exist_ok=True)
            for path in missing:
                source = Path(scratch) / path.relative_to(self.folder)
                if not source.exists() or file_md5(source) != fresh[source]:
                    raise OSError(f"{self.reader.url} has no good {path.name}")
                source.replace(path)

    def _unavailable(self, missing: list[Path], reason: str) -> DataUnavailable:
        own = self.reader.base_folder
        hint = (
            f" {self.folder} seems to be the data set's own folder: give the one that holds it."
            if self.folder.name == own
            else ""
        )
        return DataUnavailable(
            f"{self.name} is not in {self.folder} (looked in {self.folder / own} for "
            f"{', '.join(path.name for path in missing)}), and could not be downloaded: "
            f"{reason}.{hint} Put {self.reader.filename} or its unpacked folder there, or name "
            f"another folder with --data or AFI_SEARCH_DATA."
        )


def file_md5(path: Path) -> str:
    """Return a file's MD5 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download(url: str, target: Path, md5: str, name: str) -> None:
    """Download `url` to the file `target`; the log of this module tells each tenth of it.

    Raises:
        OSError: no connection within CONNECT_SECONDS, nothing received for STALL_SECONDS, no room
            on the disk, or what came has another MD5.
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

    A socket's timeout does not cover the look-up of the host's name, so the call runs in a
    daemon thread, which is left behind when it does not answer.
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


def register_cifar(name: str, reader: str, classes: str, **channels: Any) -> None:
    """Register one of the data sets; in its classes' names a hyphen stands for a space."""

    def files(folder: Path) -> CifarFiles:  # importing torchvision takes more than a second
        return CifarFiles(name, getattr(import_module("torchvision.datasets"), reader), folder)

    names = tuple(word.replace("-", " ") for word in classes.split())
    spec = DatasetSpec(
        name,
        num_classes=len(names),
        image_size=32,
        mirror_safe=True,
        train_images=50_000,
        validation=5000,
        class_names=names,
        **channels,
    )
    register_dataset(
        spec,
        read=lambda folder: files(folder).read(),
        prepare=lambda folder, download: files(folder).prepare(download),
    )


_CHANNELS10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
_CHANNELS100 = {"mean": (0.5071, 0.4865, 0.4409), "std": (0.2673, 0.2564, 0.2762)}
register_cifar("cifar10", "CIFAR10", CIFAR10_CLASSES, **_CHANNELS10)
register_cifar("cifar100", "CIFAR100", CIFAR100_CLASSES, **_CHANNELS100)
