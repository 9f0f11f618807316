"""The sampling error of an accuracy."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054


def wilson(accuracy: float, images: int) -> tuple[float, float]:
    """Return the 95 % score interval of an accuracy that was counted on so many images.

    It holds the error of drawing these images alone; another seed would move the accuracy too.
    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
    JASA 22 (1927).

    Args:
        accuracy: share of the images that were right, 0 to 1.
        images: how many there were, at least 1.
    """
    shrink = 1 + Z_95**2 / images
    centre = (accuracy + Z_95**2 / (2 * images)) / shrink
    spread = accuracy * (1 - accuracy) / images + Z_95**2 / (4 * images**2)
    half = Z_95 * math.sqrt(spread) / shrink
    return centre - half, centre + half
