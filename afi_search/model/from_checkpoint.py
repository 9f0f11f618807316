"""The trained networks that checkpoints hold: of trials, of promotions, of supernets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from afi_search.data import read_data, spec_of, split_of
from afi_search.data.image_loader import evaluation
from afi_search.data.image_reader import Preprocessing
from afi_search.errors import UserError
from afi_search.model.model import FACTS, Facts, Model, ModelError
from afi_search.model.model import load as load_model
from afi_search.nn import Supernet, build
from afi_search.space import Architecture
from afi_search.space.backbone import IMAGENET_SIZE
from afi_search.space.recipe import ImageNetRecipe
from afi_search.study.checkpoint_location import IN_THE_FOLDER
from afi_search.study.folder import StudyFile, has_study
from afi_search.study.ledger import curve
from afi_search.study.study import Study
from afi_search.train import load
from afi_search.train.checkpoint import load_file
from afi_search.train.supernet import InheritedAccuracy, restored


class NoCheckpoint(UserError):
    """A trial whose weights are not there."""


def read_checkpoint(place: str, *, imports: bool = False) -> Model:
    """Return the network of a checkpoint: of a promotion, of a trial, or an exported folder.

    `place` is its folder or file, local or a URL; `imports` runs the modules that its study names.
    A ModelError says that it is none of these, NoCheckpoint that weights are not kept, and
    CorruptCheckpoint that they cannot be read.
    """
    if (Path(place) / FACTS).is_file():
        return load_model(place)
    place = place.rstrip("/")
    is_file = place.endswith(".pt")
    folder = Path(place).parent if is_file else Path(place)
    if folder.name.isdigit() and has_study(folder.parent.parent):
        study = Study.open(folder.parent.parent, imports=imports)
        return trial_model(study, int(folder.name), load_file(place) if is_file else None)
    found = _newest_state(place, is_file)
    if found is None:
        raise ModelError(
            f"{place}: there is no checkpoint in it; name a folder like STUDY/promote/NAME, "
            f"STUDY/checkpoints/00000 or STUDY/confirm/checkpoints/00000"
        )
    if "classes" not in found.get("identity", ()):
        raise ModelError(
            f"{place}: is no trial of a study here; name it STUDY/checkpoints/NUMBER, wherever "
            f"the study's checkpoints lie"
        )
    with whole(place):
        return promoted_model(with_shared_names(found))


def trial_state(study: Study, number: int) -> dict[str, Any]:
    """Return the last checkpoint of a trial; NoCheckpoint where it has none."""
    where = study.trial_checkpoints(number)
    state = load(where)
    if state is None:
        raise NoCheckpoint(f"{where}: trial {number} of {study.folder} has no checkpoint")
    return state


def trial_model(study: Study, number: int, state: Mapping[str, Any] | None = None) -> Model:
    """Return the network of a trial of a study or confirmation, as a checkpoint, its last, has it.

    NoCheckpoint says that there is none.
    """
    state = trial_state(study, number) if state is None else state
    source = spec_of(study.file.space.data)
    trial = study.ledger.trial(number)
    architecture = Architecture.parse(trial.user_attrs["architecture"])
    module = build(architecture, num_classes=source.num_classes, image_size=source.image_size)
    with whole(f"the checkpoint of trial {number} of {study.folder}"):
        module.load_state_dict(state["model"])
        epoch = int(state["epoch"])
    accuracies = curve(trial)
    metrics = {"validation accuracy": accuracies[epoch - 1]} if epoch <= len(accuracies) else {}
    if epoch == trial.user_attrs["epochs"] and number in (known := study.ledger.tested()):
        metrics["test accuracy"] = known[number]
    how = {"trial": trial.number, "epochs": epoch, "seed": trial.user_attrs["seed"]}
    if trial.user_attrs.get("init") == "inherited":
        how["started with"] = "the weights that it inherits from the study's supernet"
    return Model(module, trained_facts(study.file, architecture, metrics, how))


@contextmanager
def whole(place: str) -> Iterator[None]:
    """Say of what a checkpoint does not hold, though it should, that it does not: a ModelError."""
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{place}: does not hold what it should: {type(error).__name__}: {reason}"
        ) from None


def trained_facts(
    study: StudyFile, architecture: Architecture, metrics: dict[str, float], how: dict[str, Any]
) -> Facts:
    """Return the facts of a network that a study has trained, `how` besides what it says itself."""
    source, space = spec_of(study.space.data), study.space
    return Facts(
        architecture=architecture.text,
        num_classes=source.num_classes,
        stem=source.image_size,
        preprocessing=Preprocessing(
            resize=source.image_size, crop=source.image_size, mean=source.mean, std=source.std
        ),
        classes=tuple(map(source.class_name, range(source.num_classes))),
        metrics=metrics,
        training={
            "study": study.name,
            **how,
            "data": space.data.model_dump(mode="json", exclude={"folder"}, exclude_none=True),
            "recipe": space.recipe.model_dump(mode="json"),
            "facts": {key: value for key, value in study.facts.items() if key != "command"},
        },
    )


def promoted_model(state: dict[str, Any], facts: dict[str, Any] | None = None) -> Model:
    """Return the network of a promotion's checkpoint: the average of the weights, if there is one.

    `facts` of the machine go into the model card.
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
                "data": {"train images": identity["train_images"], "classes": len(classes)},
                "workers by epoch": [epoch["workers"] for epoch in state["history"]],
                "recipe": recipe.model_dump(mode="json"),
                **({"facts": facts} if facts else {}),
            },
        ),
    )


def with_shared_names(state: dict[str, Any]) -> dict[str, Any]:
    """Return a promotion's state in today's form, also one from before recipes shared names."""
    recipe = dict(state["identity"]["recipe"])
    if "lr_per_256" not in recipe:
        return state
    recipe["lr"] = recipe.pop("lr_per_256") * recipe["batch_size"] / 256
    recipe["warmup"] = recipe.pop("warmup_epochs") / recipe["epochs"]
    drops = recipe.pop("drops_at_epochs")
    recipe["drops_at"] = [min(epoch / recipe["epochs"], 1.0) for epoch in drops]
    return {
        **state,
        "identity": {**state["identity"], "recipe": recipe},
        "history": [
            {("accuracy" if name == "top1" else name): value for name, value in epoch.items()}
            for epoch in state["history"]
        ],
        "generator": None,
        "torch_generator": torch.get_rng_state(),
        "cuda_generator": None,
    }


def _newest_state(place: str, is_file: bool) -> dict[str, Any] | None:
    try:
        return load_file(place) if is_file else load(place) or load(f"{place}/{IN_THE_FOLDER}")
    except UserError:
        raise
    except Exception as error:  # each file system has its own
        raise ModelError(f"{place}: cannot be read: {error}") from None


def trained_supernet(study: Study) -> Supernet:
    """Return the supernet that a study has trained; NoCheckpoint where it has none."""
    if study.supernet is None:
        raise NoCheckpoint(
            f"{study.folder}: has no supernet; a study trains one with `strategy: supernet` or "
            f"`strategy: hybrid` under `search` in its space file"
        )
    file = study.file.space
    try:
        state = trial_state(study.supernet, 0)
    except NoCheckpoint:
        raise NoCheckpoint(
            f"{study.folder}: its supernet has no checkpoint yet; the command that began the study "
            f"goes on with it: {study.file.facts.get('command', 'the same as before')}"
        ) from None
    return restored(file, spec_of(file.data), state)


def inherited_model(
    study: Study, architecture: Architecture | str, *, data: str | None = None
) -> Model:
    """Return an architecture with the weights that it inherits; see `afi_search.Study.extract`.

    Its batch norms are calibrated, which takes the study's data set.
    """
    net = trained_supernet(study)
    net.set_active(architecture)
    file = study.file.space
    images = split_of(file.data, read_data(file.data, data))
    inherit = InheritedAccuracy(net, images, precision="fp32", device=torch.device("cpu"))
    accuracy = inherit(net.active).accuracy
    assert study.supernet is not None
    trained = study.supernet.file
    how = {"inherited from": trained.name, "sampling": file.search.supernet.sampling}
    metrics = {"validation accuracy, inherited": accuracy}
    return Model(net.extract(), trained_facts(trained, net.active, metrics, how))
