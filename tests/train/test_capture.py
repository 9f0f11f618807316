"""A captured step: as exact as the eager one where there is CUDA, and the eager one elsewhere."""

from __future__ import annotations

import gc
import operator
import os
import subprocess
import sys
import warnings
import weakref
from functools import partial

import pytest
import torch

from afi_search.capture import CaptureWarning, captured
from afi_search.data.tensor_source import Normalise, normalised_batches
from afi_search.nn import build
from afi_search.space import Architecture
from afi_search.train import Evaluation, Evaluator, Trainer, seed_everything, trial_trainer
from afi_search.train import evaluation as evaluation_module
from afi_search.train import trainer as trainer_module
from tests.train.networks import RECIPE, digits_split, trainer

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="is about its absence")


def eager(step, inputs, changed):
    return step


@pytest.fixture
def exact(monkeypatch):
    """Convolutions that add up in one order, in float32 where the features are."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@without_cuda
def test_a_step_that_cannot_be_captured_is_made_eagerly_with_one_warning():
    total = torch.ones(2)

    def step(x):
        total.add_(x)

    with pytest.warns(CaptureWarning, match="runs eagerly") as told:
        run = captured(step, [torch.full((2,), 3.0)], [total])

    assert len(told) == 1
    assert torch.equal(total, torch.ones(2))
    run(torch.full((2,), 5.0))
    assert torch.equal(total, torch.full((2,), 6.0))


ALONE = """
import sys, time
from afi_search.capture import compiling_alone
with compiling_alone():
    print("in", time.monotonic(), flush=True)
    time.sleep(0.3)
    print("out", time.monotonic(), flush=True)
"""


def test_processes_that_begin_together_compile_one_after_the_other(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "made when it is needed")}
    command = [sys.executable, "-c", ALONE]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    times = sorted(
        [float(line.split()[1]) for line in process.communicate()[0].splitlines()]
        for process in both
    )

    assert times[0][1] <= times[1][0]


def test_where_no_lock_can_be_had_compiling_goes_on_without(tmp_path):
    (tmp_path / "file").touch()
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file")}

    subprocess.run([sys.executable, "-c", ALONE], env=environment, check=True)


def test_what_a_failed_capture_changed_is_put_back(monkeypatch):
    total = torch.ones(2)

    def fail(step, inputs):
        step(*inputs)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr("afi_search.capture._capture", fail)
    with pytest.warns(CaptureWarning, match="capturing$"):
        captured(partial(operator.iadd, total), [torch.ones(2)], [total])

    assert torch.equal(total, torch.ones(2))


def test_a_failed_capture_leaves_nothing_for_the_garbage_collector(monkeypatch):
    total, given = torch.ones(2), [torch.ones(2)]
    kept = []

    def step(x):
        kept.append(weakref.ref(x))
        try:
            raise ValueError("first")
        except ValueError:
            raise RuntimeError("then") from None

    monkeypatch.setattr("afi_search.capture._capture", lambda step, inputs: step(*inputs))
    gc.disable()
    try:
        with pytest.warns(CaptureWarning, match="first"):
            captured(step, given, [total])
        alive = [tensor() for tensor in kept]
    finally:
        gc.enable()

    assert alive == [None]


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("text", ["resnet20(base-r4)", "resnet20(B-r8-se, off, base-r4-shared)"])
def test_a_captured_epoch_is_the_eager_one_to_rounding(precision, text, exact, monkeypatch):
    recipe = RECIPE.model_copy(update={"precision": precision, "epochs": 1})

    def train() -> Trainer:
        seed_everything(0)
        model = build(Architecture.parse(text), num_classes=10, image_size=32)
        cuda = torch.device("cuda")
        training = trial_trainer(model, recipe, digits_split(), seed=0, device=cuda)
        training.run_epoch()
        return training

    with warnings.catch_warnings():
        warnings.simplefilter("error", CaptureWarning)
        graph = train()
    monkeypatch.setattr(trainer_module, "captured", eager)
    plain = train()

    tolerance = 1e-4 if precision == "fp32" else 3e-2
    assert graph.history[0].loss == pytest.approx(plain.history[0].loss, rel=tolerance)
    for one, other in zip(graph.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@needs_cuda
def test_after_a_failed_capture_the_process_is_as_it_was():
    total = torch.zeros(2**24, device="cuda")

    def step(x):
        torch.relu(x + 1)
        total.add_(x)
        if torch.cuda.is_current_stream_capturing():
            total[0].item()

    torch._C._cuda_clearCublasWorkspaces()  # of tests before
    gc.collect()
    before = torch.cuda.current_stream(), torch.cuda.memory_allocated()
    for _ in range(3):
        with pytest.warns(CaptureWarning, match="runs eagerly: .*capturing"):
            run = captured(step, [torch.ones_like(total)], [total])
        run(torch.ones_like(total))
    torch.cuda.empty_cache()

    assert torch.equal(total, torch.full_like(total, 3.0))
    assert (torch.cuda.current_stream(), torch.cuda.memory_allocated()) == before
    assert torch.cuda.memory_reserved() < 2 * torch.cuda.memory_allocated() + 2**27
    assert 0 <= torch.rand((), device="cuda").item() <= 1


@needs_cuda
def test_a_captured_evaluation_is_the_eager_one(exact, monkeypatch):
    data = digits_split()
    model = build(Architecture.parse("resnet20(base-r4)"), num_classes=10, image_size=32).cuda()
    cuda = torch.device("cuda")
    normalise = Normalise(data.spec.mean, data.spec.std, cuda)

    def evaluate() -> Evaluation:
        evaluator = Evaluator(model, device=cuda, precision="fp32", capture=True)
        return evaluator(normalised_batches(data.validation, normalise, 25))

    graph = evaluate()
    monkeypatch.setattr(evaluation_module, "captured", eager)
    plain = evaluate()

    assert graph == plain


def test_momentum_that_starts_at_zero_gives_the_same_first_step():
    data = digits_split()
    first = trainer(data)
    first.run_epoch()
    second = trainer(data)
    for state in second._optimiser.state.values():
        state["momentum_buffer"] = None
    second.run_epoch()

    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
