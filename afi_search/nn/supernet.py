"""One network that holds every architecture of a space by sharing weights.

An architecture runs as the very modules that `build` makes, lent slices of the shared tensors for
each pass, so that no backbone knows of it, and what is extracted is bit for bit what ran. How it is
trained is `train.supernet`'s, and in what worker `engine.supernet`'s.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from afi_search.errors import UserError
from afi_search.nn.build import build
from afi_search.nn.slices import WIDTHS, Cutting, Piece, StageSharing, pieces, whole, written
from afi_search.nn.stage import searched_stages, split_channels
from afi_search.registry import DATASETS
from afi_search.space import Architecture, Space, StageChoice, StageShape, get_backbone
from afi_search.space.architecture import choice_text

Choice = StageChoice | None
_Tensors = dict[str, Any]
"""A module's parameters or buffers, by their own names."""


class SupernetError(UserError):
    """A space that has no supernet, or an architecture that its supernet does not hold."""


class Taken(NamedTuple):
    """A tensor of an architecture: its names there, and where it is in which shared tensor.

    Where the choice takes all of that, `where` is empty.
    """

    name: str
    borrower: _Tensors
    lender: _Tensors
    own_name: str
    size: torch.Size
    where: tuple[Piece, ...]

    @property
    def shared(self) -> Tensor:
        tensor: Tensor = self.lender[self.own_name]
        return tensor


class Supernet(nn.Module):
    """Every architecture of a space, one of them active: B x 3 x H x W to B x num_classes.

    Its weights are drawn from the current torch random number generator: each choice's as `build`
    draws them, the wider ones over the narrower. A supernet of one architecture has that network's.

    Batch norms have parameters and statistics for each width of their own stage. The statistics
    are a mixture of what was trained, good for nothing: `recalibrate` the active architecture
    before it is evaluated.

    Args:
        space: its backbone, and what may be chosen in each stage.
        num_classes, image_size: as for `build`; the space's data set's where None.

    Raises:
        SupernetError: the space lists architectures of several backbones.
        UserError: `build` refuses one of the space's networks.

    >>> net = Supernet(Space.load("afi-bench-16"))
    >>> net.set_active("resnet20(base-r4, off, B-r16-eca)")
    >>> net(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 100])
    >>> net.extract("resnet20(B-r16)").fc
    Linear(in_features=64, out_features=100, bias=True)
    """

    _network: nn.Module
    """What runs, without tensors of its own; hidden from `nn.Module`, it is no part of this one."""

    def __init__(
        self, space: Space, *, num_classes: int | None = None, image_size: int | None = None
    ) -> None:
        super().__init__()
        data = space.file.data
        source = DATASETS.get(data.name).spec.at(data.image_size)
        self.space = space
        self.num_classes = num_classes or source.num_classes
        self.image_size = image_size or source.image_size
        self.backbone, self.choices = _choices(space)
        self.shared = nn.ModuleDict()
        self._places: dict[tuple[int, Choice] | None, list[Taken]] = {}
        self._stages: dict[tuple[int, Choice], nn.Module] = {}
        self._is_lent = False
        self._share()
        self.set_active(next(iter(space.architectures())))

    def __repr__(self) -> str:
        return f"<Supernet of {self.backbone}: {len(self.space):,} architectures; {self._active}>"

    @property
    def active(self) -> Architecture:
        """The architecture that runs."""
        return self._active

    def set_active(self, architecture: Architecture | str) -> None:
        """Choose the architecture that runs from now on.

        Raises:
            SupernetError: the architecture is of another backbone, or has a choice that is not
                in the space.
        """
        self._active = self._held(architecture)
        for stage, (name, choice) in enumerate(zip(self._names, self._active.stages, strict=True)):
            module = self._stages[stage, choice]
            if module.training != self._network.training:
                module.train(self._network.training)
            self._network.set_submodule(name, module)

    def sample_active(self, generator: torch.Generator) -> Architecture:
        """Activate one of the space's architectures, each with the same chance; return it."""
        position = torch.randint(len(self.space), (), generator=generator)
        self.set_active(self.space[int(position)])
        return self._active

    def forward(self, x: Tensor) -> Tensor:
        if self._network.training != self.training:
            self._network.train(self.training)
        with self.lent():
            logits: Tensor = self._network(x)
        return logits

    def tensors(self, architecture: Architecture | str | None = None) -> dict[str, Tensor]:
        """Return an architecture's tensors, the active one's where None, under `build`'s names.

        Gradients flow from them to the shared tensors. Buffers are the shared ones.

        Raises:
            SupernetError: as `set_active`.
        """
        return {part.name: tensor for part, tensor in self._taken(architecture)}

    def extract(self, architecture: Architecture | str | None = None) -> nn.Module:
        """Return an architecture, the active one where None, as a network of its own.

        It is where the supernet is, in its precision and memory format.

        Raises:
            SupernetError: as `set_active`.
        """
        of = self._active if architecture is None else self._held(architecture)
        with torch.random.fork_rng(devices=[]):
            network = self._build(of)
        tensors = {name: tensor.detach().clone() for name, tensor in self.tensors(of).items()}
        network.load_state_dict(tensors, assign=True)
        return network.train(self.training)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within it, the active architecture has its tensors, which each pass would cut out again.

        For passes between which no weight changes.
        """
        taken = [] if self._is_lent else list(self._taken())
        for part, tensor in taken:
            part.borrower[part.own_name] = tensor
        before, self._is_lent = self._is_lent, True
        try:
            yield
        finally:
            self._is_lent = before
            for part, _ in taken:
                part.borrower[part.own_name] = None

    @torch.no_grad()
    def recalibrate(self, batches: Iterable[Tensor]) -> None:
        """Give the active architecture's batch norms the statistics of images of its own.

        Mean and variance are averaged over the batches; they hold until another architecture that
        has a width in common is recalibrated or trained.

        Args:
            batches: each B x 3 x H x W.
        """
        norms = [one for one in self._network.modules() if isinstance(one, _BatchNorm)]
        before = [(norm.training, norm.momentum) for norm in norms]
        with self.lent():
            statistics = chain(*(norm.buffers() for norm in norms))
            torch._foreach_zero_([of for of in statistics if of.is_floating_point()])
            try:
                for number, images in enumerate(batches, start=1):
                    for norm in norms:
                        norm.training = True
                        norm.momentum = 1 / number  # the mean so far, on batch norm's fast path
                    self._network(images)
            finally:
                for norm, (training, momentum) in zip(norms, before, strict=True):
                    norm.training, norm.momentum = training, momentum

    def _taken(
        self, architecture: Architecture | str | None = None
    ) -> Iterator[tuple[Taken, Tensor]]:
        """Yield the tensors of an architecture, the active one's where None, and where they are."""
        of = self._active if architecture is None else self._held(architecture)
        parts = [*self._places[None], *chain(*(self._places[one] for one in enumerate(of.stages)))]
        cut = [part for part in parts if part.where]
        given = [part.size for part in cut], [part.where for part in cut]
        tensors = iter(Cutting.apply(*given, *(part.shared for part in cut)) if cut else ())
        for part in parts:
            yield part, next(tensors) if part.where else part.shared

    def _share(self) -> None:
        """Make the shared tensors, and the modules that run on them."""
        shapes = get_backbone(self.backbone).stages
        with torch.device("meta"):
            probes = [self._build(Architecture.uniform(self.backbone, width)) for width in WIDTHS]
        self._names = list(searched_stages(probes[0]))
        by_stage = zip(*(searched_stages(probe).values() for probe in probes), strict=True)
        sharing = [
            StageSharing(shape, choices, stages)
            for shape, choices, stages in zip(shapes, self.choices, by_stage, strict=True)
        ]
        for architecture in _covering(self.backbone, self.choices, shapes):
            network = self._build(architecture)
            for number, (name, stage) in enumerate(searched_stages(network).items()):
                choice = architecture.stages[number]
                if (of := (number, choice)) not in self._places:
                    self._places[of] = list(self._enter(f"{name}.", stage, sharing[number], choice))
                    self._stages[of] = stage
            if None not in self._places:
                for name in self._names:
                    network.set_submodule(name, nn.Identity())
                self._places[None] = list(self._enter("", network))
                object.__setattr__(self, "_network", network)
        for parts in self._places.values():
            for number, part in enumerate(parts):
                if part.size == part.shared.shape:
                    parts[number] = part._replace(where=())

    def _enter(
        self,
        prefix: str,
        network: nn.Module,
        sharing: StageSharing | None = None,
        choice: Choice = None,
    ) -> Iterator[Taken]:
        """Move a network's tensors into the shared ones, and yield where they are."""
        for path, module in network.named_modules():
            owner = sharing.owner(choice, path) if sharing else path
            holder = self._holder(f"{prefix}{owner}".replace(".", "/") or "/", module)
            lists: tuple[tuple[_Tensors, _Tensors], ...] = (
                (module._parameters, holder._parameters),
                (module._buffers, holder._buffers),
            )
            for borrower, lender in lists:
                for own, value in borrower.items():
                    if value is None:
                        continue
                    name, size = f"{path}.{own}" if path else own, value.shape
                    where = pieces(sharing.runs(choice, name, size) if sharing else whole(size))
                    new = written(lender.get(own), where, value.detach())
                    trained = isinstance(value, nn.Parameter)
                    lender[own] = nn.Parameter(new, value.requires_grad) if trained else new
                    borrower[own] = None
                    yield Taken(prefix + name, borrower, lender, own, size, where)

    def _holder(self, owner: str, like: nn.Module) -> nn.Module:
        """Return what holds the tensors of a module, of its class: norms decay as norms do."""
        if owner not in self.shared:
            holder = copy.copy(like)
            holder._parameters = dict.fromkeys(like._parameters)
            holder._buffers, holder._modules = dict.fromkeys(like._buffers), {}
            self.shared[owner] = holder
        return self.shared[owner]

    def _build(self, architecture: Architecture) -> nn.Module:
        return build(architecture, num_classes=self.num_classes, image_size=self.image_size)

    def _held(self, architecture: Architecture | str) -> Architecture:
        """Return an architecture that this network holds."""
        architecture = Architecture.of(architecture)
        if architecture.backbone != self.backbone:
            raise SupernetError(f"{architecture} is not of {self.backbone}, as this supernet is")
        for number, choice in enumerate(architecture.stages):
            if choice not in self.choices[number]:
                raise SupernetError(
                    f"{architecture}: stage {number + 1} cannot be {choice_text(choice)!r}; the "
                    f"supernet holds: {', '.join(map(choice_text, self.choices[number]))}"
                )
        return architecture


def _choices(space: Space) -> tuple[str, tuple[tuple[Choice, ...], ...]]:
    """Return a space's backbone, and what each stage may be."""
    if space.stage_choices:
        return str(space.file.backbone), space.stage_choices
    listed = list(space.architectures())
    backbones = {architecture.backbone for architecture in listed}
    if len(backbones) > 1:
        raise SupernetError(
            f"a supernet has one backbone, and the space lists {', '.join(sorted(backbones))}"
        )
    stages = zip(*(architecture.stages for architecture in listed), strict=True)
    return listed[0].backbone, tuple(tuple(dict.fromkeys(of)) for of in stages)


def _covering(
    backbone: str, choices: Sequence[Sequence[Choice]], shapes: Sequence[StageShape]
) -> Iterator[Architecture]:
    """Yield architectures that together have every choice of every stage, the widest last."""

    def size(shape: StageShape, choice: Choice) -> tuple[int, int]:
        return sum(split_channels(shape, choice)), -(choice.ratio if choice else 0)

    ordered = [
        sorted(of, key=partial(size, shape)) for of, shape in zip(choices, shapes, strict=True)
    ]
    for column in range(max(map(len, ordered))):
        yield Architecture(backbone, tuple(of[min(column, len(of) - 1)] for of in ordered))
