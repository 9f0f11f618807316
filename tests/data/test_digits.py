from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from afi_search import data


def test_digits_are_there_without_a_folder_and_complete(tmp_path):
    digits = data.load("digits", tmp_path / "nowhere", download=False)

    assert digits.train.images.shape == (1437, 32, 32, 3)
    assert digits.test.images.shape == (360, 32, 32, 3)
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.labels.dtype == torch.int64
    assert digits.train.images.is_contiguous()
    assert torch.bincount(digits.test.labels).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]


def test_each_image_is_one_of_scikit_learns_drawn_four_times_as_large(digits):
    original = load_digits()
    known = {
        (image * 16).astype(int).tobytes(): target
        for image, target in zip(original.images, original.target, strict=True)
    }
    for part in (digits.train, digits.test):
        small = part.images[:, ::4, ::4]
        assert torch.equal(small.repeat_interleave(4, 1).repeat_interleave(4, 2), part.images)
        assert torch.equal(part.images[..., 0], part.images[..., 2])
        for image, label in zip(small[..., 0].numpy(), part.labels, strict=True):
            greys = np.rint(image * (16 / 255))
            assert known[(greys * 16).astype(int).tobytes()] == label


def test_the_stated_mean_and_deviation_are_the_training_images(digits):
    pixels = digits.train.images.double() / 255

    assert abs(pixels.mean().item() - digits.spec.mean[0]) < 1e-4
    assert abs(pixels.std(correction=0).item() - digits.spec.std[0]) < 1e-4
