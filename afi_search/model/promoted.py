"""The network that a promotion's checkpoint holds."""

from __future__ import annotations

from typing import Any

from afi_search.data.image_loader import evaluation
from afi_search.model.model import Facts, Model
from afi_search.nn import build
from afi_search.space import Architecture
from afi_search.space.checks import IMAGENET_SIZE
from afi_search.space.imagenet_recipe import ImageNetRecipe


def promoted_model(state: dict[str, Any], facts: dict[str, Any] | None = None) -> Model:
    """Return the network of a promotion's checkpoint: the average of the weights, if there is one.

    Args:
        state: as the checkpoint has it.
        facts: of the machine, for the model card.
    """
    identity, last = state["identity"], state["history"][-1]
    recipe = ImageNetRecipe.model_validate(identity["recipe"])
    architecture = Architecture.parse(identity["architecture"])
    classes = tuple(identity["classes"])
    module = build(architecture, num_classes=len(classes), image_size=IMAGENET_SIZE)
    module.load_state_dict(state["model"] if state["ema"] is None else state["ema"])
    return Model(
        module,
        Facts(
            architecture=architecture.text,
            num_classes=len(classes),
            stem=IMAGENET_SIZE,
            preprocessing=evaluation(recipe),
            classes=classes,
            metrics={"validation top-1": last["accuracy"], "validation top-5": last["top5"]},
            training={
                **state["origin"],
                "epochs": state["epoch"],
                "data": {
                    "train images": identity["train_images"],
                    "classes": len(classes),
                },
                "workers by epoch": [epoch["workers"] for epoch in state["history"]],
                "recipe": recipe.model_dump(mode="json"),
                **({"facts": facts} if facts else {}),
            },
        ),
    )
