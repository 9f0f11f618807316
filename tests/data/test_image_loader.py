from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afi_search.data.image_folder import list_images
from afi_search.data.image_loader import (
    TorchvisionLoader,
    epoch_order,
    evaluation,
    share_out,
)
from afi_search.data.source import BatchSharding
from afi_search.errors import UserError
from afi_search.space.recipe import ImageNetRecipe
from tests.pictures import VALIDATION_IMAGES

RECIPE = ImageNetRecipe(batch_size=8, train_crop=16, eval_resize=18, eval_crop=16, seed=3)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 512), st.integers(1, 64), st.integers(1, 8))
def test_shares_add_up_to_the_batch(share: int, most: int, world: int) -> None:
    sharding = share_out(share * world, most, 0, world)

    assert sharding.batch_size == share * world
    assert sharding.per_device_batch <= most
    fewer = [r for r in range(1, sharding.accumulation_steps) if share % r == 0]
    assert all(share // rounds > most for rounds in fewer)


def test_a_batch_that_cannot_be_divided_is_told() -> None:
    with pytest.raises(UserError, match="64 cannot be divided among 3 workers"):
        share_out(64, 64, 0, 3)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 100), st.sampled_from([(1, 4, 6), (2, 2, 6), (4, 1, 6), (3, 2, 4)]))
def test_the_processes_together_see_the_same_steps_however_many(
    images: int, sharing: tuple[int, int, int]
) -> None:
    world, rounds, size = sharing
    parts = [
        epoch_order(images, BatchSharding(rank, world, rounds, size), seed=1, epoch=2)
        for rank in range(world)
    ]
    together = torch.stack(parts, dim=2).flatten(1)
    alone = epoch_order(images, BatchSharding(0, 1, 1, 24), seed=1, epoch=2).flatten(1)

    assert together.tolist() == alone.tolist()
    counts = together.flatten().bincount(minlength=images)
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    sharding = BatchSharding(0, 1, 1, 50)
    orders = [epoch_order(50, sharding, *which) for which in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order.flatten().tolist()) for order in orders}) == 3


def test_an_epoch_is_the_same_whenever_and_by_however_many_processes_it_is_loaded(
    pictures: Path,
) -> None:
    images = list_images(pictures)
    sharding = share_out(8, 4, 0, 1)
    one = TorchvisionLoader(images, RECIPE, sharding, 0)
    state = torch.get_rng_state()
    first = list(one.train(0))
    again, other_epoch = list(one.train(0)), list(one.train(1))
    two = list(TorchvisionLoader(images, RECIPE, sharding, 2).train(0))

    assert len(first) == 3 * 2
    for (pixels, labels), (pixels2, labels2), (pixels3, labels3) in zip(
        first, again, two, strict=True
    ):
        assert pixels.shape == (4, 3, 16, 16)
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels, pixels2)
        assert torch.equal(pixels, pixels3)
        assert labels.tolist() == labels2.tolist() == labels3.tolist()
    assert not torch.equal(first[0][0], other_epoch[0][0])
    assert torch.equal(torch.get_rng_state(), state)


def test_validation_images_come_once_over_all_processes(pictures: Path) -> None:
    images = list_images(pictures)
    seen = [
        label
        for rank in range(2)
        for _, labels in TorchvisionLoader(images, RECIPE, share_out(8, 4, rank, 2), 0).validation()
        for label in labels.tolist()
    ]
    assert sorted(seen) == sorted([0, 1, 2] * VALIDATION_IMAGES)


def test_an_image_that_breaks_later_is_named(pictures: Path) -> None:
    images = list_images(pictures)
    (pictures / "train" / "n01" / "0.JPEG").write_bytes(b"gone")
    with pytest.raises(UserError, match=r"n01/0\.JPEG: cannot be read"):
        list(TorchvisionLoader(images, RECIPE, share_out(8, 8, 0, 1), 0).train(0))


@pytest.mark.parametrize("processes", [0, 1])
def test_what_turns_out_broken_is_left_out_if_asked_and_told(
    pictures: Path, processes: int
) -> None:
    images = list_images(pictures)
    middle = pictures / "train" / "n01" / "0.JPEG"
    whole = middle.read_bytes()
    expected = list(TorchvisionLoader(images, RECIPE, share_out(8, 8, 0, 1), 0).train(0))
    for broken in ("train/n01/0.JPEG", "val/n02/1.JPEG", "val/n02/2.JPEG"):
        (pictures / broken).write_bytes(b"\xff\xd8" + whole[200:])
    loader = TorchvisionLoader(images, RECIPE, share_out(2, 2, 0, 1), processes, skip_broken=True)
    tested = [label for _, labels in loader.validation() for label in labels.tolist()]
    trained = [label for _, labels in loader.train(0) for label in labels.tolist()]

    assert sorted(tested) == [0, 0, 0, 1, 2, 2, 2]
    assert len(trained) == sum(len(labels) for _, labels in expected)
    assert set(loader.left_out) == {"train/n01/0.JPEG", "val/n02/1.JPEG", "val/n02/2.JPEG"}
    assert all("cannot be read: " in reason for reason in loader.left_out.values())


def test_images_that_are_all_broken_end_in_words(pictures: Path) -> None:
    images = list_images(pictures)
    for path, _ in images.train:
        (pictures / path).write_bytes(b"gone")
    loader = TorchvisionLoader(images, RECIPE, share_out(8, 8, 0, 1), 0, skip_broken=True)
    with pytest.raises(UserError, match="no image can be read any more"):
        next(loader.train(0))


def test_preprocessing_is_resize_crop_and_normalise() -> None:
    preprocessing = evaluation(RECIPE)
    image = torch.full((3, 40, 60), 255, dtype=torch.uint8)

    assert preprocessing.cropped(image).shape == (3, 16, 16)
    got = preprocessing(image)
    expected = (1 - torch.tensor(preprocessing.mean)) / torch.tensor(preprocessing.std)
    assert got.shape == (1, 3, 16, 16)
    assert torch.allclose(got, expected[None, :, None, None].expand_as(got), atol=1e-5)
    assert got.is_contiguous(memory_format=torch.channels_last)
