"""Recipe: how one model is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """A part of a space file: unknown keys are mistakes, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Recipe(Strict):
    """How one model is trained; the defaults are the paper's CIFAR recipe.

    Attributes:
        epochs: passes over the training images; a trial that reaches them has full fidelity.
        batch_size: images a step.
        lr: the highest learning rate.
        momentum: of SGD.
        nesterov: Nesterov's form of the momentum.
        weight_decay: L2 penalty.
        weight_decay_on_norm: whether batch norms and biases decay as well.
        label_smoothing: mass moved from the label to the other classes.
        schedule: `step` divides by `drop` at the fractions `drops_at`; `cosine` falls to zero;
            `triangular` falls to zero in a straight line.
        warmup: the fraction of all steps in which the rate rises from zero.
        drops_at: fractions of all epochs at which the step schedule drops.
        drop: what the step schedule divides the rate by.
        pad: pixels of zero padding before the random crop.
        flip: mirror every second image, at random, where the data set's images stay what they are.
        precision: `fp32`, `bf16`, or `auto`: for a trial the one that the device
            is measured to be faster in, otherwise bf16 where the device has instructions for it.
    """

    epochs: Annotated[int, Field(ge=1)] = 300
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    weight_decay_on_norm: bool = True
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Literal["step", "cosine", "triangular"] = "step"
    warmup: Fraction = 0.0
    drops_at: tuple[Fraction, ...] = (0.5, 0.75)
    drop: Annotated[float, Field(gt=1)] = 10.0
    pad: Annotated[int, Field(ge=0, le=16)] = 4
    flip: bool = True
    precision: Literal["auto", "fp32", "bf16"] = "auto"
