from __future__ import annotations

import torch

from afi_search.analysis.study_analysis import first_of_each_class
from afi_search.data import ImageSet


def test_images_are_the_first_of_classes_spread_over_all() -> None:
    labels = torch.tensor([3, 1, 1, 0, 2, 4, 0, 3])
    images = ImageSet(torch.arange(8, dtype=torch.uint8).reshape(8, 1, 1, 1), labels)
    assert first_of_each_class(images, 3).images.flatten().tolist() == [3, 4, 5]
    assert first_of_each_class(images, 99).labels.tolist() == [0, 1, 2, 3, 4]
