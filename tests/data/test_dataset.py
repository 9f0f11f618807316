from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from platformdirs import user_cache_path

from afi_search import data
from afi_search.registry import DATASETS, UnknownName


def test_the_data_sets_are_known_before_they_are_read():
    assert {"cifar10", "cifar100", "digits"} <= set(DATASETS.names)
    assert data.dataset_spec("cifar100").num_classes == 100
    assert data.dataset_spec("cifar10").image_size == 32


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(UnknownName, match=r"'cifar101'.*Did you mean 'cifar10"):
        data.load("cifar101")


def test_the_folder_is_the_argument_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFI_SEARCH_DATA", str(tmp_path / "variable"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data.data_folder(tmp_path / "argument") == tmp_path / "argument"
    assert data.data_folder() == tmp_path / "variable"

    monkeypatch.setenv("AFI_SEARCH_DATA", "")
    assert data.data_folder() == user_cache_path("afi_search") / "data"

    monkeypatch.chdir(tmp_path)
    assert data.data_folder("here") == tmp_path / "here"
    assert data.data_folder("~/data") == Path.home() / "data"


def test_a_new_data_set_is_one_registration(monkeypatch):
    every = {name: DATASETS.get(name) for name in DATASETS.names}
    monkeypatch.setattr(DATASETS, "_entries", every)
    pair = data.ImageSet(torch.zeros(4, 8, 8, 3, dtype=torch.uint8), torch.arange(4) % 2)
    spec = replace(data.dataset_spec("digits"), name="mine", num_classes=2, image_size=8)

    data.register_dataset(spec, read=lambda folder: (pair, pair))

    assert data.load("mine").spec.num_classes == 2
    assert torch.equal(data.load("mine").train.images, pair.images)


def test_reading_needs_neither_ray_nor_optuna():
    script = (
        "import sys\n"
        "sys.modules['ray'] = sys.modules['optuna'] = None\n"
        "import afi_search.data, afi_search.train\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
