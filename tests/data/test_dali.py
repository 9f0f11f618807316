from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from afi_search.data import dali
from afi_search.data.dali import DaliLoader, require_dali
from afi_search.data.image_folder import list_images
from afi_search.data.image_loader import Loader, TorchvisionLoader, share_out
from afi_search.errors import UserError
from afi_search.space.recipe import ImageNetRecipe
from tests.pictures import VALIDATION_IMAGES

CPU = torch.device("cpu")
RECIPE = ImageNetRecipe(batch_size=8, train_crop=32, eval_resize=40, eval_crop=32, seed=3)


@pytest.fixture
def installed() -> None:
    if importlib.util.find_spec("nvidia") is None or not importlib.util.find_spec("nvidia.dali"):
        pytest.skip("needs NVIDIA DALI: pip install 'afi-search[dali]'")


def loader(folder: Path, rank: int = 0, world: int = 1, **changes: Any) -> Loader:
    recipe = RECIPE.model_copy(update=changes)
    return DaliLoader(list_images(folder), recipe, share_out(8, 4, rank, world), 1, CPU)


def test_without_dali_it_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dali, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'afi-search\[dali\]'"):
        require_dali()


@pytest.mark.usefixtures("installed")
def test_an_epoch_is_the_same_whenever_it_is_loaded_in_the_order_of_the_other_loader(
    pictures: Path,
) -> None:
    theirs = TorchvisionLoader(list_images(pictures), RECIPE, share_out(8, 4, 0, 1), 0).train(0)
    first, again = list(loader(pictures).train(0)), list(loader(pictures).train(0))
    for (pixels, labels), (pixels2, labels2), (other_pixels, other_labels) in zip(
        first, again, theirs, strict=True
    ):
        assert pixels.shape == other_pixels.shape == (4, 3, 32, 32)
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels, pixels2)
        assert labels.tolist() == labels2.tolist() == other_labels.tolist()
    other_epoch, _ = next(loader(pictures).train(1))
    assert not torch.equal(first[0][0], other_epoch)


@pytest.mark.usefixtures("installed")
def test_trivial_augment_changes_the_crops(pictures: Path) -> None:
    plain, _ = next(loader(pictures).train(0))
    augmented, _ = next(loader(pictures, augment="trivial").train(0))
    assert augmented.shape == plain.shape
    assert not torch.equal(augmented, plain)


@pytest.mark.usefixtures("installed")
def test_validation_images_come_once_over_all_processes(pictures: Path) -> None:
    seen = [
        label
        for rank in range(2)
        for _, labels in loader(pictures, rank, 2).validation()
        for label in labels.tolist()
    ]
    assert sorted(seen) == sorted([0, 1, 2] * VALIDATION_IMAGES)


@pytest.mark.usefixtures("installed")
def test_what_is_tested_looks_as_torchvision_prepares_it(imagenette: Path) -> None:
    images, shares = list_images(imagenette), share_out(50, 50, 0, 1)
    recipe = ImageNetRecipe(eval_resize=144, eval_crop=128)
    ours = DaliLoader(images, recipe, shares, 1, CPU).validation()
    theirs = TorchvisionLoader(images, recipe, shares, 0).validation()
    seen = 0
    for (pixels, labels), (expected, expected_labels) in zip(ours, theirs, strict=True):
        assert labels.tolist() == expected_labels.tolist()
        assert pixels.is_contiguous(memory_format=torch.channels_last)
        difference = (pixels.float() - expected.float()).abs().mean(dim=(1, 2, 3))
        assert difference.max() < 3  # of 255; other resizing, same picture
        seen += len(labels)
    assert seen == 200


@pytest.mark.usefixtures("installed")
def test_an_image_that_breaks_later_is_named(pictures: Path) -> None:
    (pictures / "train" / "n01" / "0.JPEG").write_bytes(b"\xff\xd8 gone \xff\xd9")
    with pytest.raises(UserError, match=r"n01/0\.JPEG: cannot be read"):
        list(loader(pictures).train(0))
