from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afi_search.data.tensor_source import Normalise, Views, crop, draw_views, pad_images


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, height: int, width: int) -> torch.Tensor:
    size = (count, height, width, 3)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator())


@given(st.integers(1, 6), st.integers(1, 7), st.integers(1, 7), st.integers(0, 4), st.integers(0))
@settings(max_examples=40, deadline=None)
def test_the_gather_is_pad_slice_flip_one_image_at_a_time(count, height, width, pad, seed):
    images = random_images(count, height, width)
    views = draw_views(count, 9, pad=pad, flip=True, generator=generator(seed % 2**63))

    found = crop(pad_images(images, pad), views, pad)

    for sample in range(9):
        canvas = torch.zeros(height + 2 * pad, width + 2 * pad, 3, dtype=torch.uint8)
        canvas[pad : pad + height, pad : pad + width] = images[views.image[sample]]
        top, left = views.top[sample], views.left[sample]
        expected = canvas[top : top + height, left : left + width]
        if views.mirrored[sample]:
            expected = expected.flip(1)
        assert torch.equal(found[sample], expected)


def test_without_padding_and_mirroring_images_come_as_they_are():
    images = random_images(5, 8, 8)
    views = draw_views(5, 5, pad=0, flip=False, generator=generator())

    assert torch.equal(crop(pad_images(images, 0), views, 0), images[views.image])


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_every_image_comes_before_any_comes_again(images, samples):
    views = draw_views(images, samples, pad=4, flip=True, generator=generator(samples))

    counts = torch.bincount(views.image, minlength=images)
    assert len(views.image) == samples
    assert counts.max() - counts.min() <= 1
    assert len(views.image[:images].unique()) == min(images, samples)


def test_crops_and_mirrorings_take_every_value_evenly():
    views = draw_views(10, 18_000, pad=4, flip=True, generator=generator())

    for corner in (views.top, views.left):
        counts = torch.bincount(corner)
        assert len(counts) == 9
        assert (counts - 2000).abs().max() < 250
    assert abs(views.mirrored.float().mean().item() - 0.5) < 0.02
    assert len(torch.stack([views.top, views.left], 1).unique(dim=0)) == 81


def test_no_flip_means_none():
    assert not draw_views(10, 100, pad=4, flip=False, generator=generator()).mirrored.any()


def test_the_draw_is_the_generators_and_nothing_elses():
    torch.manual_seed(1)
    first = draw_views(10, 10, pad=4, flip=True, generator=generator(7))
    torch.manual_seed(2)
    second = draw_views(10, 10, pad=4, flip=True, generator=generator(7))
    other = draw_views(10, 10, pad=4, flip=True, generator=generator(8))

    assert torch.equal(first.image, second.image) and torch.equal(first.left, second.left)
    assert not torch.equal(first.image, other.image)


def test_a_batch_is_a_slice_of_the_epoch():
    views = draw_views(10, 12, pad=2, flip=True, generator=generator())

    batch = views.batch(4, 4)

    assert batch.image.tolist() == views.image[4:8].tolist()
    assert batch.mirrored.tolist() == views.mirrored[4:8].tolist()
    assert isinstance(batch, Views)


def test_normalising_is_the_formula_in_channels_last():
    images = random_images(4, 6, 5)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)

    found = Normalise(mean, std, torch.device("cpu"))(images)

    expected = images.double().permute(0, 3, 1, 2) / 255
    expected = expected - torch.tensor(mean).double().view(3, 1, 1)
    expected = expected / torch.tensor(std).double().view(3, 1, 1)
    assert found.dtype == torch.float32
    assert found.shape == (4, 3, 6, 5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pad", [0, 3])
def test_padding_is_black_and_outside(pad):
    images = random_images(2, 4, 4)

    padded = pad_images(images, pad)

    assert padded.shape == (2, 4 + 2 * pad, 4 + 2 * pad, 3)
    assert torch.equal(padded[:, pad : pad + 4, pad : pad + 4], images)
    assert padded.long().sum() == images.long().sum()
