"""How a winner is trained on ImageNet: a YAML file that is read in a minute."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from afi_search.errors import UserError, did_you_mean
from afi_search.space.document import Document
from afi_search.space.fields import Flag, Fraction, Number, Positive, Seed, Whole
from afi_search.space.mistakes import describe, explain
from afi_search.space.recipe import BaseRecipe, Epochs

Pixels = Annotated[Whole, Field(ge=8, le=1024)]


class RecipeError(UserError):
    """A recipe that is not there, or is wrong; the message lists every mistake."""


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
    images_per_device: Annotated[Whole, Field(ge=1)] = 256
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
    files = resources.files(__package__).joinpath("recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def read_recipe(name: str) -> ImageNetRecipe:
    """Read a recipe by its name, or from a YAML file.

    Raises:
        RecipeError: there is none, or it is wrong anywhere.
    """
    names = recipe_names()
    if name in names:
        file = resources.files(__package__).joinpath("recipes", f"{name}.yaml")
        document = Document.parse(file.read_text(encoding="utf-8"), name, RecipeError)
    elif Path(name).is_file():
        document = Document.read(name, RecipeError)
    else:
        raise RecipeError(
            f"recipe {name!r}: is neither one of {', '.join(names)} nor a file."
            f"{did_you_mean(name, names)}"
        )
    try:
        return ImageNetRecipe.model_validate({} if document.data is None else document.data)
    except ValidationError as error:
        raise RecipeError(describe(document, explain(error, ImageNetRecipe))) from None
