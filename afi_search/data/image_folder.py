"""Images in folders, train/CLASS/IMAGE and val/CLASS/IMAGE, and a quick look for what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.io import ImageReadMode, decode_image

from afi_search.errors import UserError

TRAIN, VALIDATION = "train", "val"
_LISTED = 10
_THREADS = 32
_TAIL = 4096
_JPEG, _JPEG_END, _PNG, _PNG_END = b"\xff\xd8", b"\xff\xd9", b"\x89PNG", b"IEND"


class ImagesError(UserError):
    """Something is wrong with the images; the message names what."""


@dataclass(frozen=True)
class Images:
    """The images of a folder.

    Attributes:
        folder: with train/ and val/ in it.
        classes: names of the training set's class folders, sorted; a label is a place in it.
        train, validation: (path below `folder`, label) of each image, sorted by path.
    """

    folder: Path
    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    validation: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Findings:
    """What a scan has found.

    Attributes:
        structure: sentences about classes; each names its folder.
        broken: images that cannot be read, as paths below the folder.
    """

    structure: list[str]
    broken: list[str]


def list_images(folder: Path, skipped: Iterable[str] = ()) -> Images:
    """List a folder's images, in the layout of torchvision's ImageFolder.

    Images of `val` whose class is not in `train` have no label and are left out.

    Args:
        folder: with train/CLASS/IMAGE and val/CLASS/IMAGE.
        skipped: paths below the folder to leave out.

    Raises:
        ImagesError: there is no folder train or val.
    """
    for part in (TRAIN, VALIDATION):
        if not (folder / part).is_dir():
            raise ImagesError(
                f"{folder}: has no folder {part!r}; wanted are {TRAIN}/CLASS/IMAGE and "
                f"{VALIDATION}/CLASS/IMAGE, a folder for each class"
            )
    classes = _class_names(folder / TRAIN)
    labels = {name: label for label, name in enumerate(classes)}
    left_out = frozenset(skipped)
    train, validation = (
        tuple(
            (path, labels[name])
            for name in classes
            for path in _image_paths(folder, f"{part}/{name}")
            if path not in left_out
        )
        for part in (TRAIN, VALIDATION)
    )
    return Images(folder, tuple(classes), train, validation)


def scan(images: Images, classes: int) -> Findings:
    """Look for what would stop a training hours later.

    Every file's first and last bytes are read; only those that look wrong are decoded, so that a
    million images take a minute or two on a local disk.

    Args:
        images: as listed.
        classes: how many class folders there should be.
    """
    structure: list[str] = []
    if len(images.classes) != classes:
        structure.append(
            f"{images.folder / TRAIN}: has {len(images.classes)} class folders and {classes} are "
            f"expected; say --classes {len(images.classes)} if that is right"
        )
    validated = set(_class_names(images.folder / VALIDATION))
    structure += [
        f"{images.folder / VALIDATION / name}: is missing; {name} is in {TRAIN}"
        for name in images.classes
        if name not in validated
    ]
    structure += [
        f"{images.folder / TRAIN / name}: is missing; {name} is in {VALIDATION}"
        for name in sorted(validated - set(images.classes))
    ]
    for part, listed in ((TRAIN, images.train), (VALIDATION, images.validation)):
        filled = {label for _, label in listed}
        structure += [
            f"{images.folder / part / name}: has no image in it"
            for label, name in enumerate(images.classes)
            if label not in filled and (images.folder / part / name).is_dir()
        ]
    paths = [path for path, _ in (*images.train, *images.validation)]
    with ThreadPoolExecutor(_THREADS) as pool:
        readable = pool.map(lambda path: is_readable(images.folder / path), paths, chunksize=256)
        broken = [p for p, whole in zip(paths, readable, strict=True) if not whole]
    return Findings(structure, broken)


def check(folder: Path, classes: int, *, skip: bool) -> tuple[Images, list[str]]:
    """List and scan a folder; return its images, and the paths that were skipped.

    Raises:
        ImagesError: something is wrong and `skip` is not asked for, or no image is left.
    """
    images = list_images(folder)
    findings = scan(images, classes)
    wrong = [*findings.structure, *(f"{folder / path}: cannot be read" for path in findings.broken)]
    if wrong and not skip:
        raise ImagesError(
            "\n".join(_some(wrong)) + "\nMend that, or leave it all out with --skip-broken."
        )
    images = list_images(folder, findings.broken)
    if not images.train or not images.validation:
        raise ImagesError(f"{folder}: {TRAIN} or {VALIDATION} holds no image that can be read")
    return images, findings.broken


def is_readable(path: Path) -> bool:
    """Return whether a file is a whole image, decoding it only where its ends look wrong."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            tail = file.read()
    except OSError:
        return False
    if head[:2] == _JPEG and tail.endswith(_JPEG_END):
        return True
    if head == _PNG and _PNG_END in tail[-16:]:
        return True
    return is_decodable(path)


def is_decodable(path: Path) -> bool:
    """Return whether a file can be decoded as an image."""
    try:
        decode_image(str(path), mode=ImageReadMode.RGB)
    except RuntimeError:
        return False
    return True


def _class_names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _image_paths(folder: Path, below: str) -> Iterator[str]:
    if not (folder / below).is_dir():
        return
    names = (entry.name for entry in os.scandir(folder / below))
    yield from sorted(f"{below}/{n}" for n in names if n.lower().endswith(IMG_EXTENSIONS))


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - _LISTED
    return [*lines[:_LISTED], f"... and {more} more"] if more > 0 else lines
