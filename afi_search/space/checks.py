"""What no single key of a space file can tell: whether its parts, data and networks fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from afi_search.errors import UserError
from afi_search.registry import DATASETS
from afi_search.space.backbone import IMAGENET_SIZE, get_backbone
from afi_search.space.document import KeyPath
from afi_search.space.mistakes import Mistake
from afi_search.space.recipe import Recipe
from afi_search.space.schema import ALL, Confirm, Data, SpaceFile


def _what_is_searched(file: SpaceFile) -> Iterator[Mistake]:
    if file.architectures:
        for key in ("backbone", "stages"):
            if getattr(file, key):
                yield Mistake((key,), f"'architectures' lists what to train, so leave {key!r} out")
    elif file.backbone is None:
        yield Mistake(("backbone",), "is missing; name the backbone to search, like resnet32")


def _stage_numbers(file: SpaceFile) -> Iterator[Mistake]:
    if file.backbone is None or file.architectures:
        return
    count = len(get_backbone(file.backbone).stages)
    numbers = set(range(1, count + 1))
    for key in file.stages:
        if key != ALL and key not in numbers:
            yield Mistake(
                ("stages", key), f"{file.backbone} has stages 1 to {count}; there is no stage {key}"
            )
    if ALL not in file.stages and (missing := sorted(numbers - set(file.stages))):
        names = ", ".join(map(str, missing))
        yield Mistake(
            ("stages",), f"nothing is said of stage {names}; list every stage, or add 'all'"
        )


def _first_architectures(file: SpaceFile) -> Iterator[Mistake]:
    for index, architecture in enumerate(file.search.first):
        if file.backbone is not None and architecture.backbone != file.backbone:
            yield Mistake(
                ("search", "first", index),
                f"{architecture} is not a {file.backbone}, the backbone that is searched",
            )


_OF_ACCURACY = ("asha", "hyperband", "median")


def _objectives(file: SpaceFile) -> Iterator[Mistake]:
    if "accuracy" not in file.objectives:
        yield Mistake(("objectives",), "accuracy must be among them, like [accuracy, macs]")


def _pruner(file: SpaceFile) -> Iterator[Mistake]:
    name, several = file.search.pruner.name, len(file.objectives) > 1
    if several and name in _OF_ACCURACY:
        yield Mistake(
            ("search", "pruner"),
            f"{name} looks at accuracy alone and would stop the cheap end of the front; with "
            f"objectives {', '.join(file.objectives)} use mo-asha or none",
        )
    grace_period, epochs = file.search.pruner.grace_period, file.recipe.epochs
    if name in (*_OF_ACCURACY, "mo-asha") and grace_period >= epochs > 1:
        yield Mistake(
            ("search", "pruner", "grace_period"),
            f"{grace_period} must be less than recipe.epochs, {epochs}, or nothing is ever stopped",
        )
    if not several and name == "mo-asha":
        yield Mistake(
            ("search", "pruner"),
            "mo-asha compares several objectives; with accuracy alone use asha, hyperband, "
            "median or none",
        )


def _promotion(file: SpaceFile) -> Iterator[Mistake]:
    if file.promote is None or file.backbone is None:
        return
    searched, stages = get_backbone(file.backbone), file.promote.stages
    if file.promote.backbone is None:
        if stages:
            yield Mistake(("promote", "stages"), "is for another backbone; name it in 'backbone'")
        elif IMAGENET_SIZE not in searched.image_sizes:
            yield Mistake(
                ("promote",),
                f"{file.backbone} is not made for ImageNet; name a backbone that is and the "
                f"stages it takes, like {{backbone: resnet50, stages: [1, 2, 3, 3]}}",
            )
        return
    target = get_backbone(file.promote.backbone)
    if IMAGENET_SIZE not in target.image_sizes:
        yield Mistake(("promote", "backbone"), f"{target.name} is not made for ImageNet")
    if len(stages) != len(target.stages):
        yield Mistake(
            ("promote", "stages"),
            f"{target.name} has {len(target.stages)} stages and {len(stages)} are given; give one "
            f"searched stage for each",
        )
    for index, number in enumerate(stages):
        if number > (count := len(searched.stages)):
            told = f"{file.backbone} has only stages 1 to {count}"
            yield Mistake(("promote", "stages", index), told)


def _amounts(file: SpaceFile) -> Iterator[Mistake]:
    name, spec = file.data.name, DATASETS.get(file.data.name).spec
    held = spec.validation if file.data.validation is None else file.data.validation
    left = spec.train_images - held
    if left <= 0:
        yield Mistake(
            ("data", "validation"),
            f"{held:,} must be less than the {spec.train_images:,} training images of {name}",
        )
    trainings: list[tuple[KeyPath, KeyPath, Data | Confirm, Recipe]] = [
        ((), ("data",), file.data, file.recipe)
    ]
    if file.confirm is not None:
        trainings.append((("confirm",), ("confirm",), file.confirm, file.confirm.recipe))
    for above, section, data, recipe in trainings:
        if data.train_subset is not None and data.train_subset < recipe.batch_size:
            yield Mistake(
                (*section, "train_subset"),
                f"must be at least {'.'.join((*above, 'recipe.batch_size'))}, {recipe.batch_size}",
            )
        if left <= 0:
            continue
        for key, most in (("train_subset", left), ("validation_subset", held)):
            if (asked := getattr(data, key) or 0) > most:
                yield Mistake(
                    (*section, key),
                    f"{asked:,} must be at most {most:,}, as many as {name} has for it; leave it "
                    f"out to take all",
                )
        if recipe.batch_size > left:
            yield Mistake(
                (*above, "recipe", "batch_size"),
                f"{recipe.batch_size:,} must be at most {left:,}, the images of {name} to train on",
            )


def _image_size(file: SpaceFile) -> Iterator[Mistake]:
    names = filter(None, (file.data.name, file.data.fallback))
    for name in names if file.backbone is not None else ():
        size = DATASETS.get(name).spec.at(file.data.image_size).image_size
        try:
            get_backbone(str(file.backbone)).require_size(size)
        except UserError as error:
            scaled = file.data.image_size is not None
            yield Mistake(("data", "image_size") if scaled else ("backbone",), f"{error} ({name})")


def _supernet(file: SpaceFile) -> Iterator[Mistake]:
    if file.search.strategy != "scratch" and len(file.backbones) > 1:
        yield Mistake(
            ("search", "strategy"),
            f"{file.search.strategy!r} wants architectures of one backbone, and the list has "
            f"{', '.join(sorted(file.backbones))}; take 'scratch'",
        )
    if file.search.strategy == "scratch" and file.search.init == "inherited":
        yield Mistake(
            ("search", "init"),
            "'inherited' wants a supernet, which strategy 'scratch' does not train; take 'random', "
            "or strategy 'hybrid' or 'supernet'",
        )


CHECKS: tuple[tuple[tuple[str, ...], Callable[[SpaceFile], Iterator[Mistake]]], ...] = (
    (("backbone", "stages", "architectures"), _what_is_searched),
    (("backbone", "stages", "architectures"), _stage_numbers),
    (("backbone", "search"), _first_architectures),
    (("objectives",), _objectives),
    (("objectives", "search", "recipe"), _pruner),
    (("backbone", "promote"), _promotion),
    (("data", "recipe", "confirm"), _amounts),
    (("backbone", "data"), _image_size),
    (("search", "architectures"), _supernet),
)
"""The parts that a check looks at, and the check: it is not made where one of them is wrong."""
