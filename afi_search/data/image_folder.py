"""Images in folders, train/CLASS/IMAGE and val/CLASS/IMAGE, and a quick look for what is wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from afi_search.data.image_reader import check_image
from afi_search.errors import UserError
from afi_search.formatting import in_a_line, plural

TRAIN, VALIDATION = "train", "val"
_LISTED = 10
_THREADS = 32
_BLOCK = 1000
"""So many images are looked at between two words of progress."""
_SORT_IMAGENET = (
    "For ImageNet, run https://github.com/soumith/imagenetloader.torch/blob/master/valprep.sh in it"
)
_SORT_TINY_IMAGENET = (
    "For Tiny ImageNet, run in it: while read image class box; do mkdir -p $class; "
    "mv images/$image $class; done < val_annotations.txt"
)


@dataclass(frozen=True)
class Images:
    """The images of a folder with train/ and val/ in it.

    Attributes:
        classes: names of the training set's class folders, sorted; a label is a place in it.
        train, validation: (path below `folder`, label) of each image, sorted by path.
        unmatched: a sentence for each class that is in one of train and val alone.
        ignored: a sentence for each hidden file and each folder that is no class.
    """

    folder: Path
    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    validation: tuple[tuple[str, int], ...]
    unmatched: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """How many training images each class has."""
        return dict(Counter(self.classes[label] for _, label in self.train))


def list_images(folder: Path, skipped: Iterable[str] = ()) -> Images:
    """List a folder's images, in the layout of torchvision's ImageFolder.

    A class's images may lie in folders below the class's. Hidden files and folders, links to a
    folder above, and folders without an image are left out, and so are images of `val` whose class
    is not in `train` (they have no label) and what is `skipped`, paths below the folder.
    """
    left_out, ignored = frozenset(skipped), list[str]()
    for part in (TRAIN, VALIDATION):
        if not (folder / part).is_dir():
            raise UserError(
                f"{in_a_line(folder)}: has no folder {part!r}; wanted are {TRAIN}/CLASS/IMAGE and "
                f"{VALIDATION}/CLASS/IMAGE, a folder for each class"
            )
    try:
        train = _classes(folder, TRAIN, left_out, ignored)
        validation = _classes(folder, VALIDATION, left_out, ignored)
    except OSError as error:
        raise UserError(f"{in_a_line(error.filename)}: {error.strerror}") from None

    def labelled(part: dict[str, list[str]]) -> tuple[tuple[str, int], ...]:
        names = enumerate(train)
        return tuple((path, label) for label, name in names for path in part.get(name, ()))

    return Images(
        folder,
        tuple(map(in_a_line, train)),
        labelled(train),
        labelled(validation),
        unmatched=tuple(_unmatched(folder, train, validation)),
        ignored=tuple(f"{in_a_line(folder)}/{line}" for line in ignored),
    )


def check(
    folder: Path, classes: int, *, skip: bool, tell: Callable[[str], None] = lambda words: None
) -> tuple[Images, dict[str, str]]:
    """List a folder's images, so many classes, and look for what would stop a training hours later.

    It takes minutes for a million images; `tell` hears again and again how far it is. Returns why
    each path that was left out cannot be read, too. A UserError tells all that is wrong and not to
    `skip`.
    """
    tell(f"Listing the images of {in_a_line(folder)}")
    images = list_images(folder)
    broken = _broken(images, tell)
    if skip:
        images = list_images(folder, broken)
    wrong = [] if skip else [*images.unmatched, *broken.values()]
    way_out = "\nMend that, or leave it all out with --skip-broken." if wrong else ""
    count = len(images.classes)
    if count != classes:
        hint = f"; say --classes {count} if that is right" if count else ""
        wrong.insert(
            0,
            f"{in_a_line(folder / TRAIN)}: has {count} class folders and {classes} "
            f"are expected{hint}",
        )
    if wrong:
        raise UserError("\n".join([*_some(wrong), *_some(images.ignored)]) + way_out)
    if not images.train or not images.validation:
        empty = f"{in_a_line(folder)}: {TRAIN} or {VALIDATION} holds no image that can be read"
        raise UserError("\n".join([empty, *_some(images.unmatched)]))
    return images, broken


def _classes(
    root: Path, part: str, skipped: frozenset[str], ignored: list[str]
) -> dict[str, list[str]]:
    """Return the images of each class folder of a part, both sorted."""
    found, loose = {}, []
    for path, is_folder in _entries(root, part, ignored):
        if is_folder:
            images = sorted(set(_images_below(root, part, path, ignored)) - skipped)
            if images:
                found[path.removeprefix(f"{part}/")] = images
            else:
                ignored.append(f"{in_a_line(path)}: has no image in it")
        elif path.lower().endswith(IMG_EXTENSIONS):
            loose.append(path)
    if loose and found:
        ignored.append(f"{part}: {plural(len(loose), 'image')} in no class's folder")
    return found


def _images_below(root: Path, part: str, of_class: str, ignored: list[str]) -> Iterator[str]:
    """Yield the images of a class, of each folder once: links may form a lattice."""
    seen = set(map(_identity, (root / part / "_").resolve().parents))
    to_list = [of_class]
    while to_list:
        below = to_list.pop()
        if (here := _identity(root / below)) in seen:
            ignored.append(f"{in_a_line(below)}: is a link to a folder above it or listed already")
            continue
        seen.add(here)
        for path, is_folder in _entries(root, below, ignored):
            if is_folder:
                to_list.append(path)
            elif path.lower().endswith(IMG_EXTENSIONS):
                yield path


def _identity(folder: Path) -> tuple[int, int]:
    of = folder.stat()
    return of.st_dev, of.st_ino


def _entries(root: Path, below: str, ignored: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield what is in a folder, sorted, and whether it is a folder; without what is hidden."""
    for entry in sorted(os.scandir(root / below), key=lambda entry: entry.name):
        path = f"{below}/{entry.name}"
        is_folder = Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()
        if not entry.name.startswith("."):
            yield path, is_folder
        elif is_folder or path.lower().endswith(IMG_EXTENSIONS):
            ignored.append(f"{in_a_line(path)}: is hidden")


def _unmatched(folder: Path, train: Iterable[str], validation: Iterable[str]) -> list[str]:
    ours, theirs = set(train), set(validation)
    if ours and not ours & theirs and any((folder / VALIDATION).iterdir()):
        tiny = (folder / VALIDATION / "val_annotations.txt").is_file()
        return [
            f"{in_a_line(folder / VALIDATION)}: its images are not sorted into folders of the "
            f"classes of {TRAIN}. {_SORT_TINY_IMAGENET if tiny else _SORT_IMAGENET}"
        ]
    return [
        f"{in_a_line(folder / part / name)}: is missing; {in_a_line(name)} is in {other}"
        for part, other, names in (
            (VALIDATION, TRAIN, ours - theirs),
            (TRAIN, VALIDATION, theirs - ours),
        )
        for name in sorted(names)
    ]


def _broken(images: Images, tell: Callable[[str], None]) -> dict[str, str]:
    """Return why each image that cannot be read cannot, by its path."""
    paths = [path for path, _ in (*images.train, *images.validation)]
    reasons = dict[str, str]()
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for begin in range(0, len(paths), _BLOCK):
            tell(f"Looking at the images: {begin:,} of {len(paths):,}")
            block = paths[begin : begin + _BLOCK]
            checks = [pool.submit(check_image, images.folder / path) for path in block]
            failed = ((path, check.exception()) for path, check in zip(block, checks, strict=True))
            reasons |= {path: str(why) for path, why in failed if why is not None}
        return reasons
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for a million images


def differences(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """Say of some of the classes whose number of training images has changed how many they had."""
    return _some(
        [
            f"{TRAIN}/{name}: {before.get(name, 0):,} images there, {now.get(name, 0):,} here"
            for name in sorted({*before, *now})
            if before.get(name, 0) != now.get(name, 0)
        ]
    )


def _some(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _LISTED
    return [*lines[:_LISTED], f"... and {more} more"] if more > 0 else [*lines]
