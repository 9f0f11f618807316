from __future__ import annotations

import _thread
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from afi_search.data import image_folder
from afi_search.data.image_folder import check, list_images
from afi_search.data.image_reader import read_image
from afi_search.errors import UserError
from tests.pictures import CLASSES, TRAIN_IMAGES, VALIDATION_IMAGES


def test_images_are_listed_with_the_labels_of_their_folders(pictures: Path) -> None:
    images, skipped = check(pictures, 3, skip=False)

    assert images.classes == CLASSES
    assert len(images.train) == 3 * TRAIN_IMAGES
    assert len(images.validation) == 3 * VALIDATION_IMAGES
    assert images.train[0] == ("train/n01/0.JPEG", 0)
    assert images.validation[-1] == ("val/n03/2.JPEG", 2)
    assert skipped == {}
    assert images.ignored == ()


def test_all_that_is_wrong_is_told_at_once(pictures: Path) -> None:
    broken = pictures / "train" / "n02" / "3.JPEG"
    broken.write_bytes(broken.read_bytes()[:200])
    (pictures / "val" / "n01" / "0.JPEG").write_bytes(b"")
    shutil.rmtree(pictures / "val" / "n03")

    with pytest.raises(UserError) as caught:
        check(pictures, 1000, skip=False)
    message = str(caught.value)
    for part in (
        "has 3 class folders and 1000 are expected; say --classes 3",
        f"{pictures / 'val' / 'n03'}: is missing; n03 is in train",
        f"{broken}: cannot be read",
        f"{pictures / 'val' / 'n01' / '0.JPEG'}: cannot be read",
        "--skip-broken",
    ):
        assert part in message


def test_a_wrong_number_of_classes_is_nothing_to_leave_out(pictures: Path) -> None:
    with pytest.raises(UserError, match=r"say --classes 3 if that is right$"):
        check(pictures, 4, skip=False)


def test_what_is_broken_is_left_out_only_if_asked(pictures: Path) -> None:
    (pictures / "train" / "n02" / "3.JPEG").write_bytes(b"\xff\xd8 no image")
    images, skipped = check(pictures, 3, skip=True)

    assert list(skipped) == ["train/n02/3.JPEG"]
    assert len(images.train) == 3 * TRAIN_IMAGES - 1
    assert list_images(pictures, skipped) == images


def test_an_empty_class_is_named(pictures: Path) -> None:
    for image in (pictures / "train" / "n02").iterdir():
        image.unlink()
    with pytest.raises(UserError, match=r"train/n02: has no image in it"):
        check(pictures, 3, skip=False)


def test_a_class_that_only_validation_has_gets_no_label(pictures: Path) -> None:
    shutil.copytree(pictures / "val" / "n01", pictures / "val" / "n00")
    with pytest.raises(UserError, match=r"train/n00: is missing; n00 is in val"):
        check(pictures, 3, skip=False)
    images, _ = check(pictures, 3, skip=True)
    assert len(images.validation) == 3 * VALIDATION_IMAGES


def test_folders_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no folder 'train'"):
        list_images(tmp_path)


@pytest.mark.parametrize(
    "no_class", [".ipynb_checkpoints", ".git/objects", "empty", "notes/of/mine", "__MACOSX"]
)
@pytest.mark.parametrize("skip", [False, True])
def test_a_folder_that_is_no_class_is_left_out_and_told(
    pictures: Path, no_class: str, skip: bool
) -> None:
    before = list_images(pictures)
    folder = pictures / "train" / no_class
    folder.mkdir(parents=True)
    if no_class.startswith("."):
        shutil.copy(pictures / "train/n01/0.JPEG", folder)
    if no_class == "__MACOSX":
        shutil.copy(pictures / "train/n01/0.JPEG", folder / "._0.JPEG")
    images, _ = check(pictures, 3, skip=skip)

    assert (images.classes, images.train) == (before.classes, before.train)
    assert f"{pictures}/train/{no_class.split('/')[0]}: " in "".join(images.ignored)


def test_images_beside_the_classes_are_left_out_and_told(pictures: Path) -> None:
    before = list_images(pictures)
    for name in ("a.JPEG", "b.png"):
        shutil.copy(pictures / "train/n01/0.JPEG", pictures / "train" / name)
    images, _ = check(pictures, 3, skip=False)
    assert images.train == before.train
    assert images.ignored == (f"{pictures}/train: 2 images in no class's folder",)


@pytest.mark.parametrize("link", ["train/n00", "train/n01/n00", "val/n01/a", "train/n01/.a"])
@pytest.mark.parametrize("target", ["..", ".", "/", "itself"])
def test_links_that_lead_in_a_circle_end(pictures: Path, link: str, target: str) -> None:
    before = list_images(pictures)
    place = pictures / link
    place.symlink_to(place if target == "itself" else target)
    images, _ = check(pictures, 3, skip=False)

    assert (images.train, images.validation) == (before.train, before.validation)
    assert target == "itself" or f"{pictures}/{link}: " in "".join(images.ignored)


def test_a_lattice_of_links_and_deep_folders_are_listed_once(pictures: Path) -> None:
    before = list_images(pictures)
    here = pictures / "train" / "n01"
    for depth in range(1000):
        here = here / "d"
        here.mkdir()
        if depth < 30:
            (here.parent / "e").symlink_to("d")
    images = list_images(pictures)
    subprocess.run(["rm", "-r", pictures / "train" / "n01" / "d"], check=True)  # pytest cannot
    assert images.train == before.train
    assert len(images.ignored) == 30


@pytest.mark.parametrize("skip", [False, True])
def test_a_wrong_number_of_classes_always_stops(pictures: Path, skip: bool) -> None:
    for image in (pictures / "train" / "n02").iterdir():
        image.write_bytes(b"") if skip else image.unlink()
    with pytest.raises(UserError, match=r"has [23] class folders|n02/0\.JPEG") as caught:
        check(pictures, 3, skip=skip)
    assert "train/n02: has no image in it" in str(caught.value)


@pytest.mark.parametrize("name", ["a.jpg", "A.JPG", "a.Png", "a.tif", "a.TIFF", "a.bmp", "a.webp"])
@pytest.mark.parametrize("below", ["", "images", "a/b/c"])
def test_what_torchvisions_imagefolder_reads_is_listed(
    pictures: Path, name: str, below: str
) -> None:
    folder = pictures / "train" / "n02" / below
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40)).save(folder / name)
    (folder / "boxes.txt").touch()
    images, _ = check(pictures, 3, skip=False)
    theirs = ImageFolder(pictures / "train").samples

    assert {(str(pictures / path), label) for path, label in images.train} == set(theirs)


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_images_of_val_that_are_not_sorted_get_a_hint(
    pictures: Path, tiny: bool, skip: bool
) -> None:
    loose = pictures / "val" / "images" if tiny else pictures / "val"
    loose.mkdir(exist_ok=True)
    for number, image in enumerate(sorted((pictures / "val").glob("*/*.JPEG"))):
        image.rename(loose / f"val_{number}.JPEG")
    if tiny:
        (pictures / "val" / "val_annotations.txt").touch()
    with pytest.raises(UserError, match="val: its images are not sorted into folders") as caught:
        check(pictures, 3, skip=skip)
    assert ("while read image class" if tiny else "valprep.sh") in str(caught.value)


def test_an_empty_part_is_told_as_it_is(pictures: Path) -> None:
    shutil.rmtree(pictures / "val")
    (pictures / "val").mkdir()
    with pytest.raises(UserError, match=r"val/n01: is missing") as caught:
        check(pictures, 3, skip=False)
    assert "sorted" not in str(caught.value)
    shutil.rmtree(pictures / "train")
    (pictures / "train").mkdir()
    with pytest.raises(UserError, match=r"has 0 class folders and 3 are expected$"):
        check(pictures, 3, skip=True)


def test_names_need_not_be_utf_8(pictures: Path) -> None:
    (pictures / "train" / "n02").rename(pictures / "train" / os.fsdecode(b"n\xe9"))
    (pictures / "val" / "n02").rename(pictures / "val" / os.fsdecode(b"n\xe9"))
    broken = os.fsencode(pictures) + b"/val/n\xe9/\xff.JPEG"
    Path(os.fsdecode(broken)).touch()
    images, skipped = check(pictures, 3, skip=True)

    assert images.classes == ("n01", "n03", r"n\xe9")
    assert [reason.encode().count(rb"val/n\xe9/\xff.JPEG") for reason in skipped.values()] == [1]
    assert len(images.train) == 3 * TRAIN_IMAGES
    for path, _ in images.train:
        read_image(images.folder / path)


def test_a_name_of_two_lines_is_told_in_one(pictures: Path) -> None:
    (pictures / "train/n01/a\nerror: b.JPEG").touch()
    _, skipped = check(pictures, 3, skip=True)
    (reason,) = skipped.values()
    assert r"n01/a\nerror: b.JPEG: cannot be read" in reason
    assert "\n" not in reason


def test_it_tells_how_far_it_is(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "_BLOCK", 10)
    for broken in ("train/n01/0.JPEG", "val/n03/0.JPEG"):
        (pictures / broken).write_bytes(b"")
    told = list[str]()
    _, skipped = check(pictures, 3, skip=True, tell=told.append)

    total = 3 * (TRAIN_IMAGES + VALIDATION_IMAGES)
    counts = [f"Looking at the images: {begin} of {total}" for begin in range(0, total, 10)]
    assert told == [f"Listing the images of {pictures}", *counts]
    assert list(skipped) == ["train/n01/0.JPEG", "val/n03/0.JPEG"]


def test_ctrl_c_ends_the_look_at_all_images(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = list[Path]()

    def look(path: Path) -> None:
        if not looked_at:
            _thread.interrupt_main()
        looked_at.append(path)
        time.sleep(0.05)

    monkeypatch.setattr(image_folder, "_THREADS", 1)
    monkeypatch.setattr(image_folder, "check_image", look)
    with pytest.raises(KeyboardInterrupt):
        check(pictures, 3, skip=False)
    assert len(looked_at) < 3 * (TRAIN_IMAGES + VALIDATION_IMAGES)


def test_real_images_are_whole(imagenette: Path) -> None:
    images, skipped = check(imagenette, 10, skip=False)
    assert (len(images.train), len(images.validation), skipped) == (1000, 200, {})
