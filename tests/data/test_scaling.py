"""Images in another size, and a space file's `data` that asks for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afi_search import data
from afi_search.space.schema import Data

HALF = Data(name="digits", image_size=16)


def halved(images: torch.Tensor) -> np.ndarray:
    """The means of 2 x 2 pixels, by columns first, each mean rounded to the nearest, halves up."""
    pixels = images.numpy().astype(np.int64)
    columns = (pixels[:, :, 0::2] + pixels[:, :, 1::2] + 1) // 2
    return (columns[:, 0::2] + columns[:, 1::2] + 1) // 2


def test_half_the_size_is_the_mean_of_two_by_two_pixels():
    drawn = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    images = data.ImageSet(drawn, torch.arange(5))

    small = images.scaled(16)

    assert small.images.dtype == torch.uint8
    np.testing.assert_array_equal(small.images.numpy(), halved(drawn))
    assert torch.equal(small.labels, images.labels)


def test_a_larger_image_repeats_its_pixels():
    drawn = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)

    large = data.ImageSet(drawn, torch.arange(2)).scaled(16)

    assert torch.equal(large.images, drawn.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_the_real_images_are_scaled_training_and_test_alike(cifar100):
    small = data.read_data(Data(name="cifar100", image_size=16))

    assert (small.spec.image_size, len(small.train), len(small.test)) == (16, 50_000, 10_000)
    for name in ("train", "test"):
        own, scaled = getattr(cifar100, name), getattr(small, name)
        np.testing.assert_array_equal(scaled.images[:500].numpy(), halved(own.images[:500]))
        assert torch.equal(scaled.labels, own.labels)


def test_facts_and_images_have_the_size_that_is_asked_for():
    source, images = data.spec_of(HALF), data.read_data(HALF)
    trial = data.split_of(HALF, images)

    assert (source.image_size, images.spec.image_size, trial.spec.image_size) == (16, 16, 16)
    for part in (images.train, images.test, trial.train, trial.validation):
        assert part.images.shape[1:] == (16, 16, 3)


@pytest.mark.parametrize("size", [None, 32])
def test_its_own_size_leaves_a_data_set_as_it_is(digits, size):
    asked = Data(name="digits", image_size=size)

    assert data.spec_of(asked) is data.dataset_spec("digits")
    assert torch.equal(data.read_data(asked).train.images, digits.train.images)
