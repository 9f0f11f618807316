"""The schema of a space file: every key a person can write, with its default and its bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    model_validator,
)

from afi_search.registry import DATASETS, PRUNERS, SAMPLERS, import_modules
from afi_search.space.architecture import Architecture, StageChoice
from afi_search.space.attention import ATTENTIONS
from afi_search.space.backbone import BACKBONES
from afi_search.space.fields import Count, Flag, Name, Number, Positive, Seed, Strict, Whole
from afi_search.space.mistakes import show, unknown_key
from afi_search.space.objective import ACCURACY, OBJECTIVES, keeps, own_measures
from afi_search.space.recipe import Recipe

LoaderName = Literal["torchvision", "dali"]

NONE = "none"
ALL = "all"
DO_NOT_IMPORT = "imports are named and not run"
"""The validation context of files that others may have written."""
AUTO = "auto"
_STAGE_KEYS = {str(number) for number in range(1, 1001)}
"""As study.yaml has the numbers of stages."""


def _imported(name: str, validated: ValidationInfo) -> str:
    if validated.context != DO_NOT_IMPORT:
        import_modules([name], validated.data.get("imports_from"))
    return name


def _known_choice(text: str) -> str:
    StageChoice.parse(text)
    return text


def _known_limit(name: str) -> str:
    known = [each for each in OBJECTIVES.names if each != ACCURACY]
    if name not in known:
        raise ValueError(unknown_key(name, known))
    return name


def _whole_number_or(word: str, most: int, what: str) -> PlainValidator:
    def read(value: Any) -> Any:
        if value != word and not (type(value) is int and 1 <= value <= most):
            raise ValueError(f"{show(value)} must be {what}, or '{word}'")
        return value

    return PlainValidator(read)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} more than once; list each value once")
    return values


ModuleName = Annotated[
    str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"), AfterValidator(_imported)
]
BackboneName = Annotated[str, AfterValidator(BACKBONES.check)]
DatasetName = Annotated[str, AfterValidator(DATASETS.check)]
SamplerName = Annotated[str, AfterValidator(SAMPLERS.check)]
PrunerName = Annotated[str, AfterValidator(PRUNERS.check)]
AttentionName = Annotated[
    str, AfterValidator(lambda name: name if name == NONE else ATTENTIONS.check(name))
]
ObjectiveName = Annotated[str, AfterValidator(OBJECTIVES.check)]
ArchitectureText = Annotated[
    Architecture,
    BeforeValidator(lambda value: Architecture.parse(str(value))),
    PlainSerializer(str, return_type=str),
]
ChoiceText = Annotated[str, AfterValidator(_known_choice)]
StageKey = Annotated[
    int | str,
    _whole_number_or(ALL, 1000, "the number of a stage"),
    BeforeValidator(lambda key: int(key) if key in _STAGE_KEYS else key),
]
Concurrency = Annotated[
    int | Literal["auto"], _whole_number_or(AUTO, 10_000, "a whole number from 1 to 10000")
]
Distinct = AfterValidator(_distinct)
AtLeastOne = Field(min_length=1)


class StageAxes(Strict):
    """What may be chosen in a stage: all combinations of four lists, or one list of choices.

    Attributes:
        choice: texts as in an architecture's, like `base-r4-eca`, instead of the other lists.
        width: `off`, `base` or `B`.
        ratio: reduction ratios r of the AFI scorer.
        attention: add-on attention on R, or `none`.
        scorer: `block` (the paper) or `stage` (one scorer for the whole stage).
    """

    choice: Annotated[tuple[ChoiceText, ...], AtLeastOne, Distinct] | None = None
    width: Annotated[tuple[Literal["off", "base", "B"], ...], AtLeastOne, Distinct] | None = None
    ratio: Annotated[tuple[Annotated[Whole, Field(ge=1)], ...], AtLeastOne, Distinct] = (4, 16)
    attention: Annotated[tuple[AttentionName, ...], AtLeastOne, Distinct] = (NONE,)
    scorer: Annotated[tuple[Literal["block", "stage"], ...], AtLeastOne, Distinct] = ("block",)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        fields = type(self).model_fields.items()
        combined = any(getattr(self, k) != f.default for k, f in fields if k != "choice")
        if self.choice and combined:
            raise ValueError("'choice' lists what may be chosen, so leave the other keys out")
        if not self.choice and not self.width:
            raise ValueError("name the widths, like 'width: [off, base]', or list each 'choice'")
        return self

    def spellings(self) -> Iterator[tuple[StageChoice | None, dict[str, str]]]:
        """Yield all choices in the order of the file, each with its value on the axes."""
        for text in self.choice or ():
            yield StageChoice.parse(text), {"choice": text}
        for width in self.width or ():
            if width == "off":
                yield None, {"width": width}
                continue
            for ratio, attention, scorer in product(self.ratio, self.attention, self.scorer):
                choice = StageChoice(width, ratio, None if attention == NONE else attention, scorer)
                axes = {"width": width, "ratio": str(ratio), "attention": attention}
                yield choice, {**axes, "scorer": scorer}


class Data(Strict):
    """The data set of the trials.

    Attributes:
        name: a registered data set.
        image_size: height and width, pixels, that all images are scaled to when they are read, by a
            box filter; the data set's own otherwise.
        folder: where it lies or is to be downloaded to; AFI_SEARCH_DATA or the user's cache
            otherwise.
        fallback: a data set to take instead, under another study name, where `name` is neither on
            disk nor to be downloaded.
        validation: training images held out for validation; the data set's own number otherwise.
        train_subset: take a stratified subset of that many training images.
        validation_subset: take a stratified subset of that many validation images.
    """

    name: DatasetName = "cifar100"
    image_size: Annotated[Whole, Field(ge=1)] | None = None
    folder: str | None = None
    fallback: DatasetName | None = None
    validation: Annotated[Whole, Field(ge=1)] | None = None
    train_subset: Annotated[Whole, Field(ge=2)] | None = None
    validation_subset: Annotated[Whole, Field(ge=1)] | None = None


class Constraints(Strict):
    """What an architecture may cost at most; infeasible ones never start.

    A registered objective can be a key as well, one that goes up with the least it has to be.

    Attributes:
        macs: multiply-accumulates of conv and linear layers and AFI scoring, per image.
        params: learnable parameters.
        memory: bytes that a training step of the recipe's batch holds at its peak, in float32.
        latency: milliseconds of a forward pass on the target.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[Annotated[str, AfterValidator(_known_limit)], Number]

    macs: Count | None = None
    params: Count | None = None
    memory: Count | None = None
    latency: Positive | None = None

    def limits(self) -> dict[str, float]:
        """Return the limits that there are, by name."""
        return {name: limit for name, limit in self if limit is not None}

    def allow(self, costs: Mapping[str, Any]) -> bool:
        """Whether `costs` (by constraint name) keep every limit."""
        return all(keeps(name, costs[name], limit) for name, limit in self.limits().items())


class Target(Strict):
    """What the winners are to run on, where latency is a constraint or an objective.

    Attributes:
        device: of the machine that runs the command; `auto`: its GPU, or without one its CPU.
        batch: images of a forward pass.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch: Annotated[Whole, Field(ge=1, le=65_536)] = 1


class Pruner(Strict):
    """When a trial is stopped early; epochs at which trials are compared are rungs.

    Attributes:
        name: `none`; `mo-asha`, ours for several objectives; `asha`, `hyperband`, `median`,
            Optuna's for accuracy alone; or one that is registered.
        grace_period: epochs every trial gets; the first rung.
        reduction_factor: each rung keeps one trial in that many, and the next comes after that
            many times the epochs.
        min_trials: trials that must have reached a rung before any is stopped there.

    The defaults are what won on tables of real trainings: benchmarks/search_quality.py --sweep.
    """

    renamed: ClassVar = {
        "grace": "grace_period",
        "reduction": "reduction_factor",
        "peers": "min_trials",
    }
    """Keys of afi_search 0.1.0 and what they are called since."""

    name: PrunerName = "none"
    grace_period: Annotated[Whole, Field(ge=1)] = 3
    reduction_factor: Annotated[Whole, Field(ge=2)] = 3
    min_trials: Annotated[Whole, Field(ge=1)] = 6


class SupernetTraining(Strict):
    """How the supernet is trained whose scores the strategies `supernet` and `hybrid` go by.

    Attributes:
        sampling: the architectures of a step: `fair`, each stage has each of its widths once;
            `single-path`, one; `sandwich`, the largest, the smallest and two others.
        epochs: twice the recipe's unless given. An epoch of `fair` costs about three of a trial.
        scores: the most architectures that are scored.
    """

    sampling: Literal["fair", "single-path", "sandwich"] = "fair"
    epochs: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = None
    scores: Annotated[Whole, Field(ge=1)] = 1000


class Search(Strict):
    """How the space is searched.

    Attributes:
        trials: architectures to try.
        strategy: `scratch`: every trial is proposed by the sampler; `supernet`: one network that
            holds all architectures is trained first, and the best by the accuracies that they
            inherit are trained from scratch; `hybrid`: the sampler goes by those accuracies, too.
        supernet: how that is trained.
        init: the weights that trials start with: `random`, or `inherited` from the supernet, which
            then has a part in all accuracies. What is not in the space starts with random ones.
        sampler: `known-cost`: what adds most to the front, by a model of the accuracy alone; `tpe`,
            `tpe-multivariate`, `nsga2`, `gp` or `random`, all from Optuna; `grid`: in the space's
            order; or one that is registered.
        pruner: a name, or a mapping with the pruner's own settings.
        warm_start: folder of another study of this space; the sampler learns from its trials, too.
        seed: of proposals, weights and batches.
        concurrency: trials at a time; `auto`: as many as the GPUs (or without one, the CPU
            cores) hold.
        gpus_per_trial: the share of a GPU a trial takes, its memory included; no more than 1.
        memory_per_trial: bytes of the machine's memory a trial may take beyond its empty worker.
        baselines: whether the plain backbone and the paper's own placements (AFI in every stage,
            in each width with the paper's ratio) are tried first, where they keep the constraints.
        first: architectures to try next, before the sampler is asked.
    """

    trials: Annotated[Whole, Field(ge=1)] = 100
    strategy: Literal["scratch", "supernet", "hybrid"] = "scratch"
    supernet: SupernetTraining = SupernetTraining()
    init: Literal["random", "inherited"] = "random"
    sampler: SamplerName = "known-cost"
    pruner: Annotated[
        Pruner, BeforeValidator(lambda told: {"name": told} if isinstance(told, str) else told)
    ] = Pruner()
    warm_start: str | None = None
    seed: Seed = 0
    concurrency: Concurrency = "auto"
    gpus_per_trial: Annotated[Positive, Field(le=1)] = 1.0
    memory_per_trial: Annotated[Count, Field(ge=100_000_000)] | None = None
    baselines: Flag = True
    first: Annotated[tuple[ArchitectureText, ...], Distinct] = ()


class Confirm(Strict):
    """How the front is confirmed: a recipe of its own, several seeds, the test set at the end.

    Attributes:
        top: confirm only so many of the front, the most accurate; all of it otherwise.
        seeds: trainings of each architecture, none with the search's own seed.
        architectures: to confirm besides the front.
        baselines: whether the plain backbone and the paper's placements are confirmed with them,
            where they keep the study's constraints.
        recipe: the paper's unless given.
        train_subset, validation_subset: as in `data`; all images unless given.
    """

    top: Annotated[Whole, Field(ge=1)] | None = None
    seeds: Annotated[Whole, Field(ge=2, le=1000)] = 3
    architectures: Annotated[tuple[ArchitectureText, ...], Distinct] = ()
    baselines: Flag = True
    recipe: Recipe = Recipe()
    train_subset: Annotated[Whole, Field(ge=2)] | None = None
    validation_subset: Annotated[Whole, Field(ge=1)] | None = None


class Promote(Strict):
    """What the winners become on ImageNet.

    Attributes:
        backbone: the ImageNet backbone; the searched one itself where it is left out.
        stages: for each of its stages, the number of the searched stage whose choice it takes.
        top: how many winners are promoted, the most accurate first.
        data: ImageNet's folder, with train/CLASS/IMAGE and val/CLASS/IMAGE, unless `afi-search
            promote` is given another.
        classes: how many class folders there have to be.
        recipe: `paper`, `modern`, or a recipe file of your own.
        pretrained: torchvision's weights of the plain backbone, to start from where shapes allow.
        checkpoints: folder or fsspec URL of the checkpoints; the study's folder otherwise.
        loader: of the images: `torchvision` on the CPU, or `dali`, on the GPU where there is one.
    """

    backbone: BackboneName | None = None
    stages: tuple[Annotated[Whole, Field(ge=1)], ...] = ()
    top: Annotated[Whole, Field(ge=1)] = 1
    data: str | None = None
    classes: Annotated[Whole, Field(ge=2)] = 1000
    recipe: str = "paper"
    pretrained: str | None = None
    checkpoints: str | None = None
    loader: LoaderName = "torchvision"


class Preset(Strict):
    """Settings that replace those of the file, under a name.

    Attributes:
        note: what the numbers of such a run are good for.
        data, recipe, search, confirm: keys of these sections.
    """

    note: str = ""
    data: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    search: dict[str, Any] = {}
    confirm: dict[str, Any] = {}


class SpaceFile(Strict):
    """A whole space file.

    Attributes:
        name: of the studies made from it; otherwise the backbone's and the data set's.
        imports_from: folder that the modules lie in, relative to the file; the file's own unless
            given.
        imports: modules to import first, here and wherever trials run: those that register what
            the file names.
        backbone: the backbone that is searched.
        stages: what may be chosen, by stage number; `all` for those not listed.
        architectures: instead of backbone and stages, a plain list of architectures to train.
        objectives: accuracy goes up; macs, params, memory and latency go down; further ones as they
            are registered.
        data, constraints, target, recipe, search, confirm, promote: see their classes.
        presets: settings by name, taken with --preset.

    >>> SpaceFile(backbone="resnet20", stages={"all": {"width": ["off", "B"]}}).costs
    ('macs',)
    """

    name: Name | None = None
    imports_from: str | None = None
    imports: Annotated[tuple[ModuleName, ...], Distinct] = ()
    backbone: BackboneName | None = None
    stages: dict[StageKey, StageAxes] = {}
    architectures: Annotated[tuple[ArchitectureText, ...], Distinct] = ()
    data: Data = Data()
    objectives: Annotated[tuple[ObjectiveName, ...], AtLeastOne, Distinct] = ("accuracy", "macs")
    constraints: Constraints = Constraints()
    target: Target = Target()
    recipe: Recipe = Recipe()
    search: Search = Search()
    confirm: Confirm | None = None
    promote: Promote | None = None
    presets: dict[Name, Preset] = {}

    @property
    def costs(self) -> tuple[str, ...]:
        """The objectives but for the accuracy."""
        return tuple(name for name in self.objectives if name != ACCURACY)

    @property
    def backbones(self) -> tuple[str, ...]:
        """The backbone, or those of the architectures that are listed."""
        listed = dict.fromkeys(architecture.backbone for architecture in self.architectures)
        return (self.backbone,) if self.backbone is not None else tuple(listed)

    @property
    def own_measures(self) -> list[str]:
        """The objectives and limits that a user's functions measure."""
        return own_measures(dict.fromkeys((*self.objectives, *self.constraints.limits())))

    def asks_for(self, cost: str) -> bool:
        """Whether a cost is an objective or has a limit."""
        return cost in self.objectives or cost in self.constraints.limits()
