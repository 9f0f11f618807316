"""Promotion: the winners of a study, trained on ImageNet with Ray Train, into a folder that ships.

STUDY/promote/NAME/checkpoints/    the last two epochs
STUDY/promote/NAME/history.csv     every epoch
STUDY/promote/NAME/model/          what `afi_search.load` opens
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from afi_search.data.dali import require_dali
from afi_search.data.image_folder import check, differences, list_images
from afi_search.device import describe_device
from afi_search.engine.capacity import cluster_nodes, plan_promotion, require_shared
from afi_search.engine.promotion_worker import SHA256, Probe, PromotionConfig, make_model
from afi_search.engine.ray_session import RaySession
from afi_search.engine.torch_train import PromotionError, measure_worker, train_to_the_end
from afi_search.errors import UserError
from afi_search.files import csv_of, require_there, write_whole
from afi_search.formatting import duration, plural
from afi_search.model.from_checkpoint import promoted_model, whole, with_shared_names
from afi_search.nn import build, load_pretrained
from afi_search.nn.pretrained import digest
from afi_search.promote.confirm_results import most_promising, read_confirmed
from afi_search.search.listener import Listener
from afi_search.space import Architecture, get_backbone
from afi_search.space.backbone import IMAGENET_SIZE
from afi_search.space.fields import check_name
from afi_search.space.recipe import read_recipe
from afi_search.space.schema import Promote
from afi_search.study.checkpoint_location import IN_THE_FOLDER, check_url, location_of
from afi_search.study.facts import gather_facts
from afi_search.study.folder import PROMOTE, StudyFile, has_study, only_driver
from afi_search.study.study import Study
from afi_search.train import CheckpointMismatch, EpochResult, load
from afi_search.train.checkpoint import KEPT
from afi_search.train.trainer import require_same

FORWARD_SHARE = 1 / 3
"""Testing an image takes about a third of training on it: the backward pass costs two forwards."""
_BINDS_BELOW = 0.9
"""The loader binds where it gives fewer images/s than this share of the model's."""


@dataclass(frozen=True)
class Needs:
    """What a promotion needs: measured on one worker for a few seconds, then multiplied.

    Communication between workers is not in it; over NVLink or InfiniBand it takes a few per cent.
    """

    probe: Probe
    workers: int
    epochs: int
    train: int
    validation: int
    averages: bool

    @property
    def seconds(self) -> float:
        training = min(self.probe.model_speed, self.probe.loader_speed)
        testing = min(self.probe.model_speed / FORWARD_SHARE, self.probe.loader_speed)
        return self.epochs * (self.train / training + self.validation / testing) / self.workers

    @property
    def disk(self) -> int:
        """Bytes of the checkpoints, at the most, and of the exported weights."""
        copies = 2 + self.averages  # weights, momentum, and the average
        checkpoints = KEPT + 1  # the new one is whole before the oldest goes
        return 4 * self.probe.weights * (checkpoints * copies + 1)

    def __str__(self) -> str:
        probe, device = self.probe, "GPU" if self.probe.on_gpu else "worker"
        slower = probe.loader_speed < _BINDS_BELOW * probe.model_speed
        binds = "the loader binds: give it more CPU cores" if slower else "the model binds"
        return (
            f"{plural(self.epochs, 'epoch')} on "
            f"{plural(self.workers, 'GPU' if probe.on_gpu else 'CPU worker')}: "
            f"about {duration(self.seconds)}, {probe.memory / 1e9:.2f} GB of memory a {device}, "
            f"{self.disk / 1e9:.2f} GB of disk. "
            f"Measured for one {device}: the model {probe.model_speed:,.0f} images/s, its loader "
            f"{probe.loader_speed:,.0f} images/s; {binds}."
        )


def promote_study(
    folder: Path,
    architectures: Sequence[Architecture | str] = (),
    *,
    workers: int | None = None,
    skip_broken: bool = False,
    name: str | None = None,
    address: str | None = None,
    listener: Listener | None = None,
    **settings: object,
) -> None:
    """Promote a study's winners one after another, as `afi_search.Study.promote`.

    With `architectures`, `folder` is any to write to. `settings` are keys of the space file's
    `promote` section, before what it says itself. A KeyboardInterrupt: a person stopped it.
    """
    listener = listener or Listener()
    study = StudyFile.read(folder, imports=True) if has_study(folder) else None
    wanted = ((study and study.space.promote) or Promote()).given(**settings)
    if wanted.data is None:
        raise PromotionError(
            f"where is ImageNet? Name its folder with --data, like: afi-search promote {folder} "
            f"--data /data/imagenet"
        )
    try:
        check_name("promotion" if name is None else name)
    except ValueError as error:
        raise PromotionError(f"--name: {error}") from None
    recipe = read_recipe(wanted.recipe)
    if wanted.loader == "dali":
        require_dali()
    below = check_url(wanted.checkpoints)
    within = below == IN_THE_FOLDER
    named = [for_imagenet(Architecture.of(each)) for each in architectures]
    chosen = named or winners(folder, wanted, listener)
    if name is not None and len(chosen) > 1:
        raise UserError(
            f"--name {name} is for one architecture, and {len(chosen)} are to be promoted; leave "
            f"it out, or take --top 1"
        )
    images, skipped = check(
        Path(wanted.data), wanted.classes, skip=skip_broken, tell=listener.at_work
    )
    for what in (*images.ignored, *skipped.values()):
        listener.said(f"Left out: {what}")
    stem = Path(wanted.recipe).stem
    owns = {each: folder / PROMOTE / (name or f"{each.slug}-{stem}") for each in chosen}
    places = {
        each: location_of(own, below) if within else f"{below}/{own.name}"
        for each, own in owns.items()
    }
    pretrained, pretrained_sha256 = wanted.pretrained, ""
    if pretrained is not None:
        if "://" not in pretrained:  # workers have another folder
            pretrained = str(Path(pretrained).expanduser().absolute())
            pretrained_sha256 = digest(pretrained)
        for each, place in places.items():  # what is wrong is told before anything starts
            if load(place) is None:
                classes = len(images.classes)
                network = build(each, num_classes=classes, image_size=IMAGENET_SIZE)
                load_pretrained(network, pretrained)
    listener.at_work("Starting Ray")
    with RaySession(address, listener.engine_lost) as session:
        dashboard = session.wait()
        capacity = plan_promotion(workers, cluster_nodes())
        for architecture, own in owns.items():
            config = PromotionConfig(
                architecture,
                recipe,
                folder=images.folder.absolute(),
                skipped=tuple(skipped),
                classes=images.classes,
                train_images=len(images.train),
                validation_images=len(images.validation),
                checkpoints=places[architecture],
                pretrained=pretrained,
                capacity=capacity,
                loader=wanted.loader,
                skip_broken=skip_broken,
                study=study,
                pretrained_sha256=pretrained_sha256,
            )
            listener.promotion_begun(architecture, stem, own, dashboard)
            with only_driver(own):
                promote_one(config, own, listener)


def promote_one(config: PromotionConfig, own: Path, listener: Listener) -> None:
    """Train one architecture to the recipe's end and export it."""
    require_shared(config.checkpoints)
    config, finished = resumed(config, listener)
    epochs = config.recipe.epochs
    if finished:
        listener.promotion_resumed(finished, epochs)
    elif config.pretrained is not None:
        fitting = load_pretrained(make_model(config), config.pretrained)
        listener.said(f"Starting from {config.pretrained}: {fitting}")
    if finished < epochs:
        listener.said("Measuring one worker ...")
        needed = Needs(
            measure_worker(config),
            workers=config.capacity.concurrency,
            epochs=epochs - finished,
            train=config.train_images,
            validation=config.validation_images,
            averages=config.recipe.ema_decay is not None,
        )
        listener.said(str(needed))

        def on_epoch(history: list[EpochResult]) -> None:
            _write_history(own, history)
            listener.epoch_ended(history[-1], epochs)

        told: set[str] = set()

        def on_left_out(reasons: dict[str, str]) -> None:
            for path in sorted(reasons.keys() - told):
                listener.said(f"Left out: {reasons[path]}")
            told.update(reasons)

        train_to_the_end(config, own, on_epoch, on_left_out)
    require_there(config.checkpoints)
    state = load(config.checkpoints)
    if state is None or state["epoch"] < epochs:
        raise KeyboardInterrupt
    state = with_shared_names(state)
    _write_history(own, [EpochResult(**epoch) for epoch in state["history"]])
    facts = {name: fact for name, fact in gather_facts("", describe_device()).items() if fact}
    listener.model_written(promoted_model(state, facts).save(own / "model"))


def resumed(
    config: PromotionConfig, listener: Listener | None = None
) -> tuple[PromotionConfig, int]:
    """Return how many epochs the checkpoint has, 0 where there is none, and how to go on.

    What has broken since the training began is not taken from its images: the loader skips it.
    Where broken images are skipped, deleted ones of classes that are still there may miss, too.
    """
    state = load(config.checkpoints)
    if state is None:
        return config, 0
    with whole(config.checkpoints):
        identity, epoch = with_shared_names(state)["identity"], int(state["epoch"])
        skipped = tuple(state.get("skipped", config.skipped))
        origin = state.get("origin", config.origin)
        sizes, had = dict(state.get("sizes", {})), int(identity["train_images"])
    now, then = config.pretrained_sha256, origin.get(SHA256, "")
    images = list_images(config.folder, skipped)
    left, changed = len(images.train), differences(sizes or images.sizes, images.sizes)
    fewer = all(0 < images.sizes.get(name, 0) <= count for name, count in sizes.items())
    if config.skip_broken and fewer and left < had:
        for gone in changed:
            (listener or Listener()).said(f"Images are gone: {gone}.")
        left = had
    config = replace(config, skipped=skipped, train_images=left, pretrained_sha256=then or now)
    began = {"pretrained": origin.get("started from"), "pretrained_sha256": then or now}
    asked = {"pretrained": config.pretrained, "pretrained_sha256": now or then}
    try:
        require_same({**config.identity, **asked}, {**identity, **began})
    except CheckpointMismatch as error:
        raise CheckpointMismatch(
            f"{'; '.join([str(error), *changed])}. Take that back, or give --name to begin another "
            f"one beside it."
        ) from None
    return config, epoch


def winners(folder: Path, wanted: Promote, listener: Listener | None = None) -> list[Architecture]:
    """Return the most accurate architectures of a study, as ImageNet backbones.

    As `most_promising` orders a confirmation, or of the front, by validation images alone.
    """
    listener, study = listener or Listener(), Study.open(folder)
    confirmed = read_confirmed(study)
    if confirmed.empty:
        points = study.front().sort_values("accuracy", ascending=False)
        if points.empty:
            raise PromotionError(f"{folder}: has no front to promote from; resume the study first")
        listener.said(
            f"The front is not confirmed: its most accurate by one seed is taken. To be sure "
            f"first: afi-search confirm {folder}"
        )
    else:
        points = most_promising(confirmed)
        rule = (
            f"the most accurate on the validation images; its seeds do not tell how sure that is "
            f"(afi-search confirm {folder} --seeds 3)"
            if confirmed["validation_high"].isna().all()
            else "the cheapest whose confirmed validation accuracy cannot be told from the best at "
            "a level of 5 %"
        )
        listener.said(f"Chosen: {', '.join(points['architecture'].head(wanted.top))}: {rule}.")
    chosen = map(Architecture.parse, points["architecture"].head(wanted.top))
    return list(dict.fromkeys(for_imagenet(a, wanted) for a in chosen))


def for_imagenet(architecture: Architecture, wanted: Promote | None = None) -> Architecture:
    """Return an architecture on its ImageNet backbone, as the `promote` section maps its stages.

    >>> mapped = Promote(backbone="resnet50", stages=(1, 2, 3, 3))
    >>> for_imagenet(Architecture.parse("resnet20(base-r4, off, B-r16)"), mapped).text
    'resnet50(base-r4, off, B-r16, B-r16)'
    """
    if wanted is not None and wanted.backbone is not None:
        chosen = tuple(architecture.stages[number - 1] for number in wanted.stages)
        return Architecture(wanted.backbone, chosen)
    if IMAGENET_SIZE not in get_backbone(architecture.backbone).image_sizes:
        raise PromotionError(
            f"{architecture.backbone} is not made for ImageNet. Say in the space file what takes "
            f"its place, like promote: {{backbone: resnet50, stages: [1, 2, 3, 3]}}, or name "
            f"architectures (--architecture), like resnet50(base-r4)"
        )
    return architecture


def _write_history(own: Path, history: Sequence[EpochResult]) -> None:
    require_there(own)
    table = pd.DataFrame(map(asdict, history)).rename(columns={"accuracy": "top1"})
    write_whole(own / "history.csv", csv_of(table))
