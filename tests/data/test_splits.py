from __future__ import annotations

import pytest
import torch

from afi_search import data
from afi_search.data import split
from afi_search.errors import UserError


def rows(images: data.ImageSet) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.images}


def test_digits_hold_out_a_fifth_of_the_training_images(digits):
    parts = split(digits)

    assert (len(parts.train), len(parts.validation)) == (1150, 287)
    assert (parts.spec.num_classes, parts.spec.mirror_safe) == (10, False)
    assert rows(parts.train).isdisjoint(rows(parts.validation))
    assert rows(parts.train) | rows(parts.validation) == rows(digits.train)


def test_a_subset_is_part_of_the_same_side_and_keeps_the_classes_shares(digits):
    whole = split(digits)
    parts = split(digits, train_subset=200, validation_subset=50)

    assert (len(parts.train), len(parts.validation)) == (200, 50)
    assert rows(parts.train) <= rows(whole.train)
    assert rows(parts.validation) <= rows(whole.validation)
    share = 200 * torch.bincount(whole.train.labels) / len(whole.train)
    assert ((torch.bincount(parts.train.labels) - share).abs() < 1).all()


def test_a_subset_larger_than_the_data_is_all_of_it(digits):
    parts = split(digits, train_subset=5000, validation_subset=1000)

    assert (len(parts.train), len(parts.validation)) == (1150, 287)


def test_images_keep_their_labels(digits):
    label_of = {
        image.numpy().tobytes(): label.item()
        for image, label in zip(digits.train.images, digits.train.labels, strict=True)
    }
    parts = split(digits, train_subset=100)

    for image, label in zip(parts.train.images, parts.train.labels, strict=True):
        assert label_of[image.numpy().tobytes()] == label


@pytest.mark.parametrize("validation", [None, 100])
@pytest.mark.parametrize("limit", [None, 200, 5000])
def test_the_images_to_train_on_are_counted_without_reading(digits, validation, limit):
    parts = split(digits, validation=validation, train_subset=limit)

    counted = data.trained_images(data.dataset_spec("digits"), validation, limit)

    assert counted == len(parts.train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": 1437}, "1437 images cannot be held out of digits's 1437"),
        ({"validation": 0}, "give 1 to 1436"),
        ({"train_subset": 0}, "train_subset: 0 leaves no image"),
        ({"validation_subset": -1}, "validation_subset: -1 leaves no image"),
    ],
)
def test_impossible_numbers_are_the_persons_mistake(digits, arguments, message):
    with pytest.raises(UserError, match=message):
        split(digits, **arguments)


def test_cifar100_splits_into_450_and_50_images_a_class(cifar100):
    parts = split(cifar100)

    assert parts.spec.mirror_safe
    assert torch.bincount(parts.train.labels).tolist() == [450] * 100
    assert torch.bincount(parts.validation.labels).tolist() == [50] * 100

    subset = split(cifar100, train_subset=5000, validation_subset=1000)
    assert torch.bincount(subset.train.labels).tolist() == [50] * 100
    assert torch.bincount(subset.validation.labels).tolist() == [10] * 100
