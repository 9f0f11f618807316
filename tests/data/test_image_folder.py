from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torchvision.io import write_png

from afi_search.data.image_folder import ImagesError, check, is_readable, list_images
from tests.pictures import CLASSES, TRAIN_IMAGES, VALIDATION_IMAGES


def test_images_are_listed_with_the_labels_of_their_folders(pictures: Path) -> None:
    images, skipped = check(pictures, 3, skip=False)

    assert images.classes == CLASSES
    assert len(images.train) == 3 * TRAIN_IMAGES
    assert len(images.validation) == 3 * VALIDATION_IMAGES
    assert images.train[0] == ("train/n01/0.JPEG", 0)
    assert images.validation[-1] == ("val/n03/2.JPEG", 2)
    assert skipped == []


def test_all_that_is_wrong_is_told_at_once(pictures: Path) -> None:
    broken = pictures / "train" / "n02" / "3.JPEG"
    broken.write_bytes(broken.read_bytes()[:200])
    (pictures / "val" / "n01" / "0.JPEG").write_bytes(b"")
    shutil.rmtree(pictures / "val" / "n03")

    with pytest.raises(ImagesError) as caught:
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


def test_what_is_broken_is_left_out_only_if_asked(pictures: Path) -> None:
    (pictures / "train" / "n02" / "3.JPEG").write_bytes(b"\xff\xd8 no image")
    images, skipped = check(pictures, 3, skip=True)

    assert skipped == ["train/n02/3.JPEG"]
    assert len(images.train) == 3 * TRAIN_IMAGES - 1
    assert list_images(pictures, skipped) == images


def test_an_empty_class_is_named(pictures: Path) -> None:
    for image in (pictures / "train" / "n02").iterdir():
        image.unlink()
    with pytest.raises(ImagesError, match=r"train/n02: has no image in it"):
        check(pictures, 3, skip=False)


def test_a_class_that_only_validation_has_gets_no_label(pictures: Path) -> None:
    shutil.copytree(pictures / "val" / "n01", pictures / "val" / "n00")
    with pytest.raises(ImagesError, match=r"train/n00: is missing; n00 is in val"):
        check(pictures, 3, skip=False)
    images, _ = check(pictures, 3, skip=True)
    assert len(images.validation) == 3 * VALIDATION_IMAGES


def test_folders_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="has no folder 'train'"):
        list_images(tmp_path)


def test_only_whole_images_are_readable(pictures: Path, tmp_path: Path) -> None:
    jpeg = pictures / "train" / "n01" / "0.JPEG"
    padded = tmp_path / "padded.jpg"
    padded.write_bytes(jpeg.read_bytes() + b"\0" * 10_000)
    png = tmp_path / "really.JPEG"
    write_png(torch.zeros(3, 8, 8, dtype=torch.uint8), str(png))
    cut = tmp_path / "cut.JPEG"
    cut.write_bytes(png.read_bytes()[:-20])

    assert all(map(is_readable, (jpeg, padded, png)))
    assert not is_readable(cut)
    assert not is_readable(tmp_path / "missing.jpg")


def test_real_images_are_whole(imagenette: Path) -> None:
    images, skipped = check(imagenette, 10, skip=False)
    assert (len(images.train), len(images.validation), skipped) == (1000, 200, [])
