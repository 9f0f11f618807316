"""Recipe: how one model is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from afi_search.space.fields import (
    Flag,
    Fraction,
    Number,
    Positive,
    PrecisionSetting,
    Strict,
    Whole,
)

Epochs = Annotated[Whole, Field(ge=1, le=1_000_000)]


class BaseRecipe(Strict):
    """What the recipes of trials and of ImageNet have in common: optimiser, schedule and loss.

    Parts of the training are fractions of all its steps, as numbers or like `30/90`.

    Attributes:
        epochs: passes over the training images; a trial that reaches them has full fidelity.
        batch_size: images a step, over all devices.
        lr: the highest learning rate.
        momentum: of SGD.
        nesterov: Nesterov's form of the momentum.
        weight_decay: L2 penalty.
        weight_decay_on_norm: whether batch norms and biases decay as well.
        label_smoothing: mass moved from the label to the other classes.
        schedule: `step` divides by `drop` at the fractions `drops_at`; `cosine` falls to zero;
            `triangular` falls to zero in a straight line.
        warmup: the fraction of all steps in which the rate rises from zero.
        drops_at: fractions of all steps at which the step schedule drops.
        drop: what the step schedule divides the rate by.
        precision: `fp32`, `bf16`, or `auto`: in a study and in a promotion the one that the device
            is measured to be faster in, otherwise bf16 where the device has instructions for it.
    """

    epochs: Epochs
    batch_size: Annotated[Whole, Field(ge=2)] = 64
    lr: Positive
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    nesterov: Flag = False
    weight_decay: Annotated[Number, Field(ge=0)] = 1e-4
    weight_decay_on_norm: Flag = True
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    schedule: Literal["step", "cosine", "triangular"] = "step"
    warmup: Fraction = 0.0
    drops_at: tuple[Fraction, ...]
    drop: Annotated[Number, Field(gt=1)] = 10.0
    precision: PrecisionSetting = "auto"


class Recipe(BaseRecipe):
    """How a trial is trained; the defaults are the paper's CIFAR recipe.

    Attributes:
        pad: pixels of zero padding before the random crop.
        flip: random horizontal flip (p = 0.5), if the data set is `mirror_safe`.
    """

    epochs: Epochs = 300
    lr: Positive = 0.1
    drops_at: tuple[Fraction, ...] = (0.5, 0.75)
    pad: Annotated[Whole, Field(ge=0, le=16)] = 4
    flip: Flag = True
