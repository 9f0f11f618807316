"""Promotion: the winners of a study, trained on ImageNet with Ray Train, into a folder that ships.

STUDY/promote/NAME/checkpoints/    the last two epochs
STUDY/promote/NAME/history.csv     every epoch
STUDY/promote/NAME/model/          what `afi_search.load` opens
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from threading import Event, Thread
from typing import Annotated, Any

import pandas as pd
import ray
import typer
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue
from rich.console import Console

from afi_search.data.dali import require_dali
from afi_search.data.image_folder import check
from afi_search.device import describe_device
from afi_search.engine.cluster import (
    Capacity,
    cluster_nodes,
    plan_promotion,
    ray_session,
    require_shared,
)
from afi_search.engine.promotion_worker import Task, make_model, probe, train_worker
from afi_search.errors import UserError, exits_on_mistake
from afi_search.files import write_whole
from afi_search.model.promoted import promoted_model
from afi_search.nn import warm_start
from afi_search.promote.confirm import read_confirmed
from afi_search.promote.estimate import describe, needs
from afi_search.space import Architecture, get_backbone
from afi_search.space.checks import IMAGENET_SIZE
from afi_search.space.imagenet_recipe import ImageNetRecipe, read_recipe
from afi_search.space.schema import LoaderName, Promote
from afi_search.study import Ledger
from afi_search.study.checkpoint_location import IN_THE_FOLDER, check_url, place_of
from afi_search.study.folder import STUDY_FILE, StudyFile, gather_facts, only_driver
from afi_search.study.pareto import front
from afi_search.train import load
from afi_search.train.trainer import require_same

FOLDER = "promote"
_WORKER_DEATHS = 3
_NEWS_SECONDS = 0.5

console = Console()


class PromotionError(UserError):
    """A promotion that cannot be begun, or has failed."""


@exits_on_mistake
def promote(
    study: Annotated[
        Path,
        typer.Argument(help="A study's folder; with --architecture, any folder to write to."),
    ],
    data: Annotated[
        Path | None, typer.Option(help="ImageNet's folder, with train/CLASS and val/CLASS.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="paper, modern, or a recipe file of your own.")
    ] = None,
    architecture: Annotated[
        list[str] | None,
        typer.Option(help="What to train instead of the winners; may be repeated."),
    ] = None,
    top: Annotated[int | None, typer.Option(help="How many winners.", min=1)] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; all GPUs, or one CPU process.", min=1)
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Class folders there must be.", min=2)] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="torchvision's weights of the plain backbone, a file.")
    ] = None,
    checkpoints: Annotated[
        str | None, typer.Option(help="Folder or fsspec URL, like s3://bucket/folder.")
    ] = None,
    loader: Annotated[
        LoaderName | None, typer.Option(help="Of the images; dali decodes on the GPU.")
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out what the scan finds wrong.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Of the promotion's folder.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster to join.")] = None,
) -> None:
    """Train a study's winners on ImageNet, or go on with it, and export them."""
    wanted = (StudyFile.read(study).space.promote if has_study(study) else None) or Promote()
    given = {
        "data": None if data is None else str(data),
        "recipe": recipe,
        "top": top,
        "classes": classes,
        "pretrained": pretrained,
        "checkpoints": checkpoints,
        "loader": loader,
    }
    wanted = wanted.model_copy(update={key: v for key, v in given.items() if v is not None})
    named = [Architecture.parse(text) for text in architecture or ()]
    finished = promote_study(
        study,
        wanted,
        named,
        workers=workers,
        skip_broken=skip_broken,
        name=name,
        address=address,
    )
    if not finished:
        console.print("[bold]Interrupted.[/] The same command goes on from the last epoch.")
        sys.exit(130)


def promote_study(
    folder: Path,
    wanted: Promote,
    named: Sequence[Architecture] = (),
    *,
    workers: int | None = None,
    skip_broken: bool = False,
    name: str | None = None,
    address: str | None = None,
) -> bool:
    """Promote a study's winners one after another; return whether all came to their end.

    Raises:
        UserError: data, recipe or checkpoints are not what they should be, or there is no winner.
    """
    if wanted.data is None:
        raise PromotionError(
            f"where is ImageNet? Name its folder with --data, like: afi-search promote {folder} "
            f"--data /data/imagenet"
        )
    recipe = read_recipe(wanted.recipe)
    if wanted.loader == "dali":
        require_dali()
    below = check_url(wanted.checkpoints)
    chosen = [for_imagenet(a) for a in named] or winners(folder, wanted)
    if name is not None and len(chosen) > 1:
        raise UserError(
            f"--name {name} is for one architecture, and {len(chosen)} are to be promoted; leave "
            f"it out, or take --top 1"
        )
    images, skipped = check(Path(wanted.data), wanted.classes, skip=skip_broken)
    for path in skipped:
        console.print(f"Left out, as asked: {path}", soft_wrap=True, highlight=False)
    study = StudyFile.read(folder) if has_study(folder) else None
    with ray_session(address) as dashboard:
        capacity = plan_promotion(workers, cluster_nodes())
        for architecture in chosen:
            stem = Path(wanted.recipe).stem
            own = folder / FOLDER / (name or f"{architecture.slug}-{stem}")
            task = Task(
                architecture,
                recipe,
                folder=images.folder.absolute(),
                skipped=tuple(skipped),
                classes=images.classes,
                train_images=len(images.train),
                checkpoints=_checkpoints_of(own, below),
                pretrained=wanted.pretrained,
                cores=capacity.threads,
                processes=_loading_processes(capacity),
                loader=wanted.loader,
                study=study.name if study else "",
                imports=study.space.imports if study else (),
            )
            console.print(
                f"Promoting [bold]{architecture}[/] by the recipe {stem}, in {own}. Ray "
                f"dashboard: {dashboard}.",
                soft_wrap=True,
            )
            with only_driver(own):
                if not promote_one(task, own, capacity, len(images.validation)):
                    return False
    return True


def promote_one(task: Task, own: Path, capacity: Capacity, validation_images: int) -> bool:
    """Train one architecture to the recipe's end and export it; False when interrupted."""
    require_shared(task.checkpoints)
    state = load(task.checkpoints)
    epoch = 0
    if state is not None:
        require_same(task.identity, state["identity"])
        epoch = int(state["epoch"])
        console.print(f"Going on after epoch {epoch} of {task.recipe.epochs}.")
    elif task.pretrained is not None:
        started = warm_start(make_model(task), task.pretrained)
        console.print(f"Starting from {task.pretrained}: {started}", highlight=False)
    left = task.recipe.epochs - epoch
    if left:
        announce(task, capacity, left, validation_images)
        if not _fit(task, own, capacity):
            return False
    state = load(task.checkpoints)
    if state is None or state["epoch"] < task.recipe.epochs:
        return False
    write_history(own, state["history"])
    facts = {name: fact for name, fact in gather_facts("", describe_device()).items() if fact}
    paths = promoted_model(state, facts).save(own / "model")
    console.print("Written:", *(f"  {path}" for path in paths), sep="\n", soft_wrap=True)
    return True


def announce(task: Task, capacity: Capacity, epochs: int, validation_images: int) -> None:
    """Measure on one worker what is ahead, and say it."""
    resources = {"num_cpus": capacity.threads, "num_gpus": capacity.gpus}
    try:
        measured = ray.get(
            ray.remote(probe).options(**resources).remote(task, capacity.concurrency)
        )
    except ray.exceptions.RayTaskError as error:
        raise PromotionError(
            f"{task.architecture}: cannot be trained here: {error.cause}"
        ) from None
    needed = needs(
        measured,
        workers=capacity.concurrency,
        epochs=epochs,
        train=task.train_images,
        validation=validation_images,
        averages=task.recipe.ema_decay is not None,
    )
    console.print(
        describe(measured, needed, workers=capacity.concurrency, epochs=epochs), soft_wrap=True
    )


def _loading_processes(capacity: Capacity) -> int:
    """Processes that load for each worker; a CPU that trains loads by itself."""
    return capacity.threads if capacity.gpus else max(0, min(1, capacity.threads - 1))


def winners(folder: Path, wanted: Promote) -> list[Architecture]:
    """Return the most accurate that a confirmation has not refuted, as ImageNet backbones.

    Without a confirmation, the most accurate of the front. What decides is the accuracy on
    validation images, never the test set's.

    Raises:
        UserError: the folder holds no study, or the study has no front.
    """
    confirmed = read_confirmed(folder)
    if confirmed.empty:
        best = front(Ledger.open(folder).records()).sort_values("accuracy", ascending=False)
        console.print(
            f"The front is not confirmed: its most accurate by one seed is taken. To be sure "
            f"first: afi-search confirm {folder}"
        )
    else:
        best = confirmed[confirmed["verdict"] != "beaten"]
        best = best.sort_values("validation", ascending=False)
    if best.empty:
        raise PromotionError(f"{folder}: has no front to promote from; go on with the study first")
    chosen = map(Architecture.parse, best["architecture"].head(wanted.top))
    return list(dict.fromkeys(for_imagenet(a, wanted) for a in chosen))


def for_imagenet(architecture: Architecture, wanted: Promote | None = None) -> Architecture:
    """Return an architecture on its ImageNet backbone, as the `promote` section maps its stages.

    Raises:
        PromotionError: the backbone is not made for ImageNet and nothing says what takes its place.
    """
    if wanted is not None and wanted.backbone is not None:
        chosen = tuple(architecture.stages[number - 1] for number in wanted.stages)
        return Architecture(wanted.backbone, chosen)
    if IMAGENET_SIZE not in get_backbone(architecture.backbone).image_sizes:
        raise PromotionError(
            f"{architecture.backbone} is not made for ImageNet. Say in the space file what takes "
            f"its place, like promote: {{backbone: resnet50, stages: [1, 2, 3, 3]}}, or name an "
            f"architecture with --architecture"
        )
    return architecture


def has_study(folder: Path) -> bool:
    """Whether a folder is a study's."""
    return (folder / STUDY_FILE).is_file()


def write_history(own: Path, history: list[dict[str, Any]]) -> None:
    """Write history.csv: one row an epoch, with the number of workers that trained it."""
    text = pd.DataFrame(history).to_csv(index=False, lineterminator="\n")
    write_whole(own / "history.csv", text)


def _fit(task: Task, own: Path, capacity: Capacity) -> bool:
    """Run Ray Train until the recipe's end; return False when a person interrupts it."""
    news = Queue(actor_options={"num_cpus": 0})
    failures: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with tempfile.TemporaryDirectory(prefix="afi_search-") as scratch:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"task": task, "news": news},
            scaling_config=ScalingConfig(
                num_workers=capacity.concurrency,
                use_gpu=bool(capacity.gpus),
                resources_per_worker={k.upper(): v for k, v in capacity.resources.items() if v},
            ),
            run_config=RunConfig(
                name=own.name,
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=_WORKER_DEATHS),
            ),
        )
        try:
            with _listening(news, task.recipe, own, failures):
                trainer.fit()
        except (KeyboardInterrupt, SystemExit, ray.exceptions.RayActorError):
            return False  # Ray's own handler of Ctrl-C ends in one of these, or in none
        except ray.train.TrainingFailedError as error:
            raise PromotionError(_reason(error)) from None
        finally:
            signal.signal(signal.SIGINT, before)
            news.shutdown(force=True)
    if failures:
        raise PromotionError(f"{task.architecture}: {failures[0]}; lower lr in the recipe")
    return True


@contextmanager
def _listening(
    news: Queue, recipe: ImageNetRecipe, own: Path, failures: list[str]
) -> Iterator[None]:
    """Show each epoch as it ends, and keep history.csv, while the training runs."""
    over = Event()

    def listen() -> None:
        while True:
            ended = over.is_set()
            try:
                item = news.get(timeout=_NEWS_SECONDS)
            except Empty:
                if ended:
                    return
                continue
            except ray.exceptions.RayActorError:
                return  # the session is over, and the queue with it
            if "failed" in item:
                failures.append(item["failed"])
                continue
            write_history(own, item["history"])
            line = _epoch_line(item["history"][-1], recipe.epochs)
            console.print(line, soft_wrap=True, highlight=False)

    listener = Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        over.set()
        listener.join(timeout=10)


def _epoch_line(epoch: dict[str, Any], epochs: int) -> str:
    return (
        f"epoch {epoch['epoch']}/{epochs}  loss {epoch['loss']:.3f}  "
        f"top-1 {100 * epoch['accuracy']:.2f} %  top-5 {100 * epoch['top5']:.2f} %  "
        f"{epoch['images_per_second']:,.0f} images/s  {epoch['workers']} workers  "
        f"{epoch['seconds']:.0f} s"
    )


def _reason(error: Exception) -> str:
    """Return what went wrong in the first worker that failed, without Ray's traces."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    first = next(iter(failures.values()))
    cause = getattr(first, "cause", None) or first
    lines = [line for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    return f"the training failed {_WORKER_DEATHS + 1} times: {lines[-1].strip()}"


def _checkpoints_of(own: Path, below: str) -> str:
    return place_of(own, below) if below == IN_THE_FOLDER else f"{below}/{own.name}"
