"""A model that ships: a folder of safetensors, JSON and Markdown, and nothing that is executed.

model.safetensors    the weights
model.json           architecture, preprocessing, classes, metrics, costs, how it was trained
README.md            the same for a reader: the model card
model.onnx, .pt2     the network for other runtimes, where `afi-search export` was asked for it
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from afi_search.cost import CONVENTIONS, measure
from afi_search.data.image_reader import Preprocessing, read_image
from afi_search.errors import UserError
from afi_search.files import Content, write_together
from afi_search.formatting import printable
from afi_search.model.fold import fold_batch_norms
from afi_search.nn import build
from afi_search.nn.stage import searched_stages
from afi_search.space import Architecture
from afi_search.space.fields import Fraction, Strict, Whole
from afi_search.space.mistakes import describe, explain

WEIGHTS, FACTS, CARD = "model.safetensors", "model.json", "README.md"
ONNX, EXPORTED = "model.onnx", "model.pt2"
_WNID = re.compile(r"n\d{8}")
MOST_CLASSES = 20
"""The card names so many classes."""


class ModelError(UserError):
    """A folder that holds no model."""


class Facts(Strict):
    """Everything about a model but its weights; stored as model.json.

    Attributes:
        format: of the folder.
        architecture: its text.
        num_classes: outputs.
        stem: the image size the network is built for; up to 32 it has the CIFAR stem.
        batch_norms: `kept`, or `folded` into the convolutions.
        preprocessing: what is done to an image first.
        classes: a name for each output.
        metrics: accuracies by name, 0 to 1.
        costs: by name, each with its convention in the card.
        training: recipe, data, study, versions: whatever is known.
        sha256: of the file of the weights, where this is stored beside it.
    """

    format: Literal["afi_search model 1"] = "afi_search model 1"
    architecture: str
    num_classes: Annotated[Whole, Field(ge=1)]
    stem: Annotated[Whole, Field(ge=1)]
    batch_norms: Literal["kept", "folded"] = "kept"
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    metrics: dict[str, Fraction] = {}
    costs: dict[str, float] = {}
    training: dict[str, Any] = {}
    sha256: str = ""


class Prediction(NamedTuple):
    """One guess for an image: the class and its probability."""

    label: str
    probability: float


class FeatureInfo(NamedTuple):
    """One of a model's feature maps: the stage's name, as in `named_modules`, and its channels.

    `stride`: pixels of the image for each of the map's, in height and in width.
    """

    name: str
    channels: int
    stride: int


class Model:
    """A trained network with all that is needed to use it.

    From a folder that a promotion wrote::

        model = afi_search.load("models/resnet50").to("cuda")
        model.predict("photo.jpg", top=1)   # [Prediction(label='tench', probability=0.93)]
        maps = model.features(images)       # as a backbone for detection or segmentation
        [(info.channels, info.stride) for info in model.feature_info()]
        # [(256, 4), (512, 8), (1024, 16), (2048, 32)]

    Args:
        module: B x 3 x crop x crop normalised floats to B x num_classes; put into eval mode
            and channels_last.
        facts: see `Facts`.
    """

    def __init__(self, module: nn.Module, facts: Facts) -> None:
        self.module = module.eval().to(memory_format=torch.channels_last)
        self.facts = facts

    def __repr__(self) -> str:
        crop, metrics = self.facts.preprocessing.crop, self.facts.metrics
        reached = "".join(f", {name} {100 * value:.2f} %" for name, value in metrics.items())
        return (
            f"<Model {self.architecture}: {self.facts.num_classes} classes, images of {crop} x "
            f"{crop}, on {self.device}{reached}>"
        )

    @property
    def architecture(self) -> Architecture:
        return Architecture.parse(self.facts.architecture)

    @property
    def device(self) -> torch.device:
        """Where the network is, and where `preprocess` puts images."""
        return next(self.module.parameters()).device

    def to(self, device: torch.device | str) -> Model:
        """Move the network to a device; return the model."""
        self.module.to(device)
        return self

    def preprocess(self, image: Tensor) -> Tensor:
        """Turn one image, 3 x H x W uint8, into 1 x 3 x crop x crop floats on the device."""
        return self.facts.preprocessing(image.to(self.device))

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the output of each searched stage, B x C x H x W, the first stage's first.

        Gradients flow, so that a detector or a segmentation head can train it; `feature_info` has
        channels and strides. ResNet's strides, for instance, are 4, 8, 16, 32, and with the CIFAR
        stem 1, 2, 4.

        Args:
            images: B x 3 x H x W floats as of `preprocess`, of any height and width that the
                strides divide.
        """
        maps: list[Tensor] = []
        with ExitStack() as hooks:
            for stage in searched_stages(self.module).values():
                hook = stage.register_forward_hook(lambda *passed: maps.append(passed[2]))
                hooks.enter_context(hook)
            self.module(images)
        return maps

    def feature_info(self) -> list[FeatureInfo]:
        """Return name, channels and stride of each of the maps that `features` returns."""
        crop = self.facts.preprocessing.crop
        with torch.no_grad():
            maps = self.features(torch.zeros(1, 3, crop, crop, device=self.device))
        names = searched_stages(self.module)
        return [
            FeatureInfo(name, of.shape[1], crop // of.shape[2])
            for name, of in zip(names, maps, strict=True)
        ]

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits, B x num_classes, of preprocessed images on the device."""
        with torch.inference_mode():
            logits: Tensor = self.module(images)
        return logits

    def predict(self, path: str | Path, top: int = 5) -> list[Prediction]:
        """Return the likeliest classes of an image file, the likeliest first.

        Raises:
            ImageError: the file is not there, or is no whole image.
        """
        probabilities = self(self.preprocess(read_image(path)))[0].softmax(dim=0)
        best = probabilities.topk(min(top, self.facts.num_classes))
        return [
            Prediction(class_name(self.facts.classes[index]), probability)
            for index, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def folded(self) -> Model:
        """Return the model with its batch norms folded into the convolutions."""
        if self.facts.batch_norms == "folded":
            return self
        module = fold_batch_norms(self.module, self.facts.stem)
        return Model(module, self.facts.model_copy(update={"batch_norms": "folded"}))

    def save(self, folder: str | Path, others: Mapping[str, bytes] | None = None) -> list[Path]:
        """Write the folder, or write over a model that is there; return the files.

        Nothing is changed before all is on disk; of a kill while files are moved, `load` tells.

        Args:
            folder: where to; a model.onnx or model.pt2 of other weights that is there is deleted.
            others: files for other runtimes that belong to it, by name.

        Raises:
            ModelError: what is there by those names is of something else, and would be lost.
        """
        folder = Path(folder)
        there = [*folder.glob(CARD), *sorted(folder.glob("model.*"))]
        before = _facts_in(folder)
        if there and before is None:
            raise ModelError(
                f"{there[0]}: is of no model that afi_search wrote, and would be overwritten; name "
                f"another folder"
            )
        facts, text = self.facts, self.facts.architecture
        sizes = {"num_classes": facts.num_classes, "image_size": facts.stem}
        weights = to_safetensors(
            {name: tensor.cpu().contiguous() for name, tensor in self.module.state_dict().items()}
        )
        stored = facts.model_dump(mode="json") | {
            "costs": facts.costs or measure(text, **sizes).figures(),
            "sha256": sha256(weights).hexdigest(),
        }
        contents: dict[str, Content] = {  # the facts first: by them a folder is known as a model's
            FACTS: json.dumps(stored, indent=2, ensure_ascii=False) + "\n",
            WEIGHTS: weights,
            CARD: model_card(stored),
            **(others or {}),
        }
        same = before is not None and before.get("sha256") == stored["sha256"]
        return write_together(folder, contents, outdated=() if same else (ONNX, EXPORTED))


def _facts_in(folder: Path) -> dict[str, Any] | None:
    """Return the facts of a model, whatever else of it is there; None where there are none."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return facts if facts["format"].startswith("afi_search model") else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def class_name(label: str) -> str:
    """Return what a class of ImageNet is called; any other label stands for itself.

    >>> class_name("n01440764"), class_name("digit-3")
    ('tench, Tinca tinca', 'digit-3')
    """
    if not _WNID.fullmatch(label):
        return label
    from timm.data.imagenet_info import ImageNetInfo

    try:
        return str(ImageNetInfo().label_name_to_description(label))
    except KeyError:  # of WordNet, and not among ImageNet's thousand
        return label


def model_card(facts: Mapping[str, Any]) -> str:
    """Return the card of a model (Mitchell et al. 2019, arXiv:1810.03993) as Markdown."""
    templates = Environment(
        loader=PackageLoader("afi_search.model"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["cell"] = _as_markdown
    return templates.get_template("card.md.jinja").render(
        **facts,
        CONVENTIONS=CONVENTIONS,
        flat_training=dict(_flat(facts["training"])),
        MOST_CLASSES=MOST_CLASSES,
    )


def _as_markdown(value: Any) -> str:
    return " ".join(printable(str(value)).replace("|", "\\|").replace("<", "&lt;").split())


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def load(folder: str | Path) -> Model:
    """Open a model that `afi-search export` or a promotion wrote; nothing in it is executed.

    Raises:
        ModelError: the folder holds no such model, or one that was damaged or changed.

    >>> model = load("models/resnet32")  # doctest: +SKIP
    >>> model.to("cuda").predict("cat.jpg")  # doctest: +SKIP
    >>> load("studies")
    Traceback (most recent call last):
    afi_search.model.model.ModelError: studies: is no model's folder; there is no model.json in it
    """
    path, weights = Path(folder, FACTS), Path(folder, WEIGHTS)
    try:
        facts = Facts.model_validate_json(path.read_text(encoding="utf-8"))
        if len(facts.classes) != facts.num_classes:
            raise ModelError(f"classes: {len(facts.classes)} names for {facts.num_classes} outputs")
        module = build(facts.architecture, num_classes=facts.num_classes, image_size=facts.stem)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{folder}: is no model's folder; there is no {FACTS} in it") from None
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: is not text: {error}") from None
    except ValidationError as error:
        raise ModelError(describe(str(path), explain(error, Facts))) from None
    except UserError as error:
        raise ModelError(f"{path}: {error}") from None
    if facts.batch_norms == "folded":
        module = fold_batch_norms(module, facts.stem)
    try:
        stored = weights.read_bytes()
        tensors = from_safetensors(stored)
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: there is no {WEIGHTS} in it; copy the folder or export the model again"
        ) from None
    except SafetensorError as error:
        raise ModelError(f"{weights}: is cut short or damaged: {error}") from None
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise ModelError(f"{weights}: holds NaN or infinity; the training that wrote it diverged")
    if facts.sha256 and facts.sha256 != (found := sha256(stored).hexdigest()):
        raise ModelError(
            f"{weights}: is not the file that was exported: its SHA-256 is {found}, and {FACTS} "
            f"says {facts.sha256}. Copy the folder again, or export the model again"
        )
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        what = facts.architecture
        raise ModelError(f"{weights}: are not the weights of {what}: {error}") from None
    return Model(module, facts.model_copy(update={"sha256": ""}))
