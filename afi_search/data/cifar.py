"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), read by torchvision.

The files are the "python version" of the data sets, in the folders that their archives make:
`cifar-10-batches-py` and `cifar-100-python`. Each file has an MD5 in torchvision's reader.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from afi_search.data.cifar_classes import CIFAR10_CLASSES, CIFAR100_CLASSES
from afi_search.data.dataset import ImageSet
from afi_search.data.download import DownloadFailed, extract, fetch, file_md5
from afi_search.data.errors import DataCorrupt, DataUnavailable
from afi_search.data.registry import Source, register

Reader = type[CIFAR10]


def prepare(name: str, reader: Reader, folder: Path, download: bool) -> None:
    """Check every file of the data set; fetch the missing ones where `download` allows it.

    An archive that lies in `folder` already is taken instead of a download. A file that is there
    is never overwritten.

    Raises:
        DataUnavailable: a file is missing and cannot be had.
        DataCorrupt: a file, or the archive beside it, is not the right one.
    """
    try:
        missing = _missing(name, reader, folder)
    except OSError as error:
        raise DataUnavailable(f"{name}: cannot look into {folder}: {error.strerror}.") from error
    if not missing:
        return
    archive = folder / reader.filename
    if archive.exists():
        _demand(name, archive, reader.tgz_md5)
    elif not download:
        raise _unavailable(name, reader, folder, missing, "it may not be downloaded here")
    made_here = not folder.exists()
    try:
        _install(name, reader, folder, missing)
    except (DownloadFailed, OSError) as error:
        if made_here:
            with suppress(OSError):
                folder.rmdir()
        raise _unavailable(name, reader, folder, missing, str(error)) from error


def read(name: str, reader: Reader, folder: Path) -> tuple[ImageSet, ImageSet]:
    """Read the training and the test images, trusting files that `prepare` has checked.

    Raises:
        DataUnavailable: a file is missing.
        DataCorrupt: a file cannot be read.
    """
    missing = [path for path in _checksums(reader, folder) if not path.exists()]
    if missing:
        raise _unavailable(name, reader, folder, missing, "it is not on this machine")
    train = _images(name, reader, folder, train=True)
    test = _images(name, reader, folder, train=False)
    return train, test


def _checksums(reader: Reader, folder: Path) -> dict[Path, str]:
    base = folder / reader.base_folder
    listed = [*reader.train_list, *reader.test_list]
    return {
        **{base / file: md5 for file, md5 in listed},
        base / reader.meta["filename"]: reader.meta["md5"],
    }


def _missing(name: str, reader: Reader, folder: Path) -> list[Path]:
    """Return the files that are not there, after checking the ones that are."""
    base = folder / reader.base_folder
    if base.exists() and not base.is_dir():
        raise DataCorrupt(f"{name}: {base} should be a folder and is a file. Remove it.")
    checksums = _checksums(reader, folder)
    for path, md5 in checksums.items():
        if path.exists():
            _demand(name, path, md5)
    return [path for path in checksums if not path.exists()]


def _demand(name: str, path: Path, md5: str) -> None:
    if not path.is_file():
        raise DataCorrupt(f"{name}: {path} should be a file and is a folder. Remove it.")
    try:
        found = file_md5(path)
    except OSError as error:
        raise DataCorrupt(f"{name}: {path} cannot be read: {error.strerror}.") from error
    if found != md5:
        raise DataCorrupt(
            f"{name}: {path} is cut short, damaged or of another data set: its MD5 is {found} "
            f"and should be {md5} ({path.stat().st_size} bytes). Remove it, or copy it again."
        )


def _install(name: str, reader: Reader, folder: Path, missing: list[Path]) -> None:
    """Put the missing files in place, each complete and checked before it has its name."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".afi-search-") as scratch:
        archive = folder / reader.filename
        if not archive.exists():
            archive = Path(scratch) / reader.filename
            fetch(reader.url, archive, reader.tgz_md5, f"{name} to {folder}")
        extract(archive, Path(scratch))
        fresh = _checksums(reader, Path(scratch))
        (folder / reader.base_folder).mkdir(exist_ok=True)
        for path in missing:
            source = Path(scratch) / path.relative_to(folder)
            if not source.exists() or file_md5(source) != fresh[source]:
                raise DownloadFailed(f"{reader.url} has no good {path.name}")
            source.replace(path)


def _unavailable(
    name: str, reader: Reader, folder: Path, missing: list[Path], reason: str
) -> DataUnavailable:
    files = ", ".join(path.name for path in missing)
    hint = (
        f" {folder} seems to be the data set's own folder: give the one that holds it."
        if folder.name == reader.base_folder
        else ""
    )
    return DataUnavailable(
        f"{name} is not in {folder} (looked in {folder / reader.base_folder} for {files}), and "
        f"could not be downloaded: {reason}.{hint} Put {reader.filename} or its unpacked folder "
        f"there, or name another folder with --data or AFI_SEARCH_DATA."
    )


def _images(name: str, reader: Reader, folder: Path, *, train: bool) -> ImageSet:
    trusting: Any = type(reader.__name__, (reader,), {"_check_integrity": lambda self: True})
    try:
        raw = trusting(str(folder), train=train)
        images = torch.from_numpy(np.ascontiguousarray(raw.data))
        labels = torch.tensor(raw.targets, dtype=torch.int64)
    except Exception as error:
        files = reader.train_list if train else reader.test_list
        names = ", ".join(str(folder / reader.base_folder / file) for file, _ in files)
        raise DataCorrupt(f"{name}: cannot read {names}: {error}.") from error
    return ImageSet(images, labels)


def _source(name: str, reader: Reader, num_classes: int, **facts: Any) -> Source:
    return Source(
        name=name,
        num_classes=num_classes,
        image_size=32,
        mirror_safe=True,
        train_images=50_000,
        validation=5000,
        prepare=partial(prepare, name, reader),
        read=partial(read, name, reader),
        **facts,
    )


register(
    _source(
        "cifar10",
        CIFAR10,
        10,
        class_names=CIFAR10_CLASSES,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    )
)
register(
    _source(
        "cifar100",
        CIFAR100,
        100,
        class_names=CIFAR100_CLASSES,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    )
)
