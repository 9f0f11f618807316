"""Recipes: how a trial is trained, and how a winner is on ImageNet.

ImageNet's are YAML files, each read in a minute: two come with the package, in recipes/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from afi_search.errors import UserError, did_you_mean
from afi_search.space.document import Document
from afi_search.space.fields import (
    Flag,
    Fraction,
    Number,
    Positive,
    PrecisionSetting,
    Seed,
    Strict,
    Whole,
)
from afi_search.space.mistakes import describe, explain

_RECIPES = Path(__file__).parent / "recipes"
Epochs = Annotated[Whole, Field(ge=1, le=1_000_000)]
Pixels = Annotated[Whole, Field(ge=8, le=1024)]


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
        precision: `fp32`, whose convolutions a GPU from Ampere on computes in TF32, as is PyTorch's
            default; `bf16`; or `auto`: in a study and in a promotion the one that the device
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

    >>> Recipe(epochs=30, lr=0.5).batch_size
    64
    """

    epochs: Epochs = 300
    lr: Positive = 0.1
    drops_at: tuple[Fraction, ...] = (0.5, 0.75)
    pad: Annotated[Whole, Field(ge=0, le=16)] = 4
    flip: Flag = True


class ImageNetRecipe(BaseRecipe):
    """How one model is trained on images in folders; the defaults are the paper's.

    Attributes:
        mixup, cutmix: alpha of each; 0 is without. With both, each batch takes one of them.
        ema_decay: of the running average of the weights, which is tested and shipped then; None
            is without.
        augment: `trivial` for TrivialAugmentWide, or `none`.
        train_crop: side of the random resized crop.
        eval_resize: the shorter side before the centre crop.
        eval_crop: side of the centre crop.
        sync_batch_norm: batch norms over all GPUs together; CPU processes keep their own.
        images_per_device: the most images a device takes at once; a larger share of the batch is
            taken in several rounds, whose gradients add up.
        seed: of weights, order and augmentation.
    """

    epochs: Epochs = 90
    lr: Positive = 0.025
    drops_at: tuple[Fraction, ...] = (30 / 90, 60 / 90, 80 / 90)
    mixup: Annotated[Number, Field(ge=0)] = 0.0
    cutmix: Annotated[Number, Field(ge=0)] = 0.0
    ema_decay: Annotated[Number, Field(gt=0, lt=1)] | None = None
    augment: Literal["none", "trivial"] = "none"
    train_crop: Pixels = 224
    eval_resize: Pixels = 256
    eval_crop: Pixels = 224
    sync_batch_norm: Flag = False
    images_per_device: Annotated[Whole, Field(ge=1, le=65_536)] = 256
    seed: Seed = 0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.eval_crop > self.eval_resize:
            raise ValueError(
                f"eval_crop {self.eval_crop} must not be over eval_resize {self.eval_resize}"
            )
        return self


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in _RECIPES.glob("*.yaml"))


def read_recipe(name: str) -> ImageNetRecipe:
    """Read a recipe by its name, or from a YAML file; a UserError has all that is wrong with it.

    >>> read_recipe("paper").epochs
    90
    """
    path = _RECIPES / f"{name}.yaml" if name in recipe_names() else Path(name)
    if not path.is_file():
        names = recipe_names()
        raise UserError(
            f"recipe {name!r}: is neither one of {', '.join(names)} nor a file."
            f"{did_you_mean(name, names)}"
        )
    document = Document.read(path, UserError)
    try:
        return ImageNetRecipe.model_validate({} if document.data is None else document.data)
    except ValidationError as error:
        raise UserError(describe(document, explain(error, ImageNetRecipe))) from None
