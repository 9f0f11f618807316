from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from afi_search.errors import UserError
from afi_search.space.recipe import ImageNetRecipe, read_recipe, recipe_names
from afi_search.train import learning_rate


def test_the_recipes_that_come_along() -> None:
    assert recipe_names() == ["modern", "paper"]
    assert read_recipe("modern").ema_decay == 0.9999


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = read_recipe("paper")
    steps = 1000

    def rate(epoch: float) -> float:
        return learning_rate(recipe, int(epoch * steps), 90 * steps)

    assert (recipe.epochs, recipe.batch_size, recipe.momentum, recipe.weight_decay) == (
        90,
        64,
        0.9,
        1e-4,
    )
    assert (recipe.train_crop, recipe.eval_crop) == (224, 224)
    base = 0.1 * 64 / 256
    rates = [rate(epoch) for epoch in (0, 29.9, 30, 59.9, 60, 79.9, 80, 89.9)]
    assert rates == pytest.approx(
        [base, base, base / 10, base / 10, base / 100, base / 100, base / 1000, base / 1000]
    )
    assert recipe == ImageNetRecipe()


def test_the_paper_recipe_file_is_short() -> None:
    path = Path(read_recipe.__code__.co_filename).parent / "recipes" / "paper.yaml"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 25


def test_the_schedule_scales_with_the_epochs() -> None:
    """A fraction may be written as a quotient, and is the number that the quotient is."""
    recipe = ImageNetRecipe.model_validate({"epochs": 20, "drops_at": ["3/4", "1/1"]})
    assert recipe.drops_at == (0.75, 1.0)
    rates = [learning_rate(recipe, step, 2000) for step in (1499, 1500, 1999)]
    assert rates == [recipe.lr, recipe.lr / 10, recipe.lr / 10]
    with pytest.raises(ValidationError, match="drops_at"):
        ImageNetRecipe.model_validate({"drops_at": ["30/20"]})
    with pytest.raises(ValidationError, match="warmup"):
        ImageNetRecipe.model_validate({"warmup": "1/0"})


def test_an_old_name_is_told_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("lr_per_256: 0.1\nwarmup_epochs: 5\ndrops_at_epochs: [30]\n")
    with pytest.raises(UserError) as caught:
        read_recipe(str(path))
    for name, line in zip(
        ("lr", "warmup", "drops_at"), str(caught.value).splitlines(), strict=True
    ):
        assert f"Did you mean {name!r}?" in line


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: many\nbatchsize: 64\n")
    with pytest.raises(UserError) as caught:
        read_recipe(str(path))
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "mine.yaml:1: epochs: 'many' must be a whole number" in lines[0]
    assert "Did you mean 'batch_size'?" in lines[1]

    path.write_text(json.dumps({"eval_crop": 300, "eval_resize": 256}))
    with pytest.raises(UserError, match="eval_crop 300 must not be over eval_resize 256"):
        read_recipe(str(path))
    path.write_text("epochs: [1")
    with pytest.raises(UserError, match=r"mine\.yaml:\d+: is not YAML"):
        read_recipe(str(path))
    with pytest.raises(UserError, match="Did you mean 'paper'"):
        read_recipe("papr")
