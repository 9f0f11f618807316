"""Recipe: how one model is trained."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def read_quotient(value: Any) -> Any:
    """Read `30/90` as a number; leave anything else to the schema."""
    match = re.fullmatch(r"([0-9]+)\s*/\s*([1-9][0-9]*)", str(value))
    return int(match[1]) / int(match[2]) if match else value


Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(read_quotient)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """A part of a space file: unknown keys are mistakes, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    weight_decay_on_norm: bool = True
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Literal["step", "cosine", "triangular"] = "step"
    warmup: Fraction = 0.0
    drops_at: tuple[Fraction, ...]
    drop: Annotated[float, Field(gt=1)] = 10.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Recipe(BaseRecipe):
    """How a trial is trained; the defaults are the paper's CIFAR recipe.

    Attributes:
        pad: pixels of zero padding before the random crop.
        flip: random horizontal flip (p = 0.5), if the data set is `mirror_safe`.
    """

    epochs: Annotated[int, Field(ge=1)] = 300
    lr: Positive = 0.1
    drops_at: tuple[Fraction, ...] = (0.5, 0.75)
    pad: Annotated[int, Field(ge=0, le=16)] = 4
    flip: bool = True
