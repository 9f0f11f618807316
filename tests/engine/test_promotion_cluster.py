from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from ray.cluster_utils import Cluster

import afi_search
from afi_search.model.from_checkpoint import read_checkpoint
from tests.pictures import noise
from tests.promote.test_promotion import recipe_file, start


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, bucket: str, tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes that are not alike, one of two cores and one of a single core, without a token."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    token = tmp_path / "home" / ".ray" / "auth_token"  # of searches on this machine alone
    token.parent.mkdir(parents=True)
    token.write_text("0123456789" * 6)
    yield nodes
    nodes.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_workers_on_two_nodes_with_checkpoints_in_s3(
    cluster: Cluster, bucket: str, pictures: Path, tmp_path: Path
) -> None:
    arguments = [str(tmp_path), "--data", str(pictures), "--classes", "3", "--workers", "3"]
    arguments += ["--recipe", recipe_file(tmp_path, epochs=2, batch=6)]
    arguments += ["--architecture", "shufflenetv2(base-r4)", "--name", "p"]
    arguments += ["--checkpoints", f"s3://{bucket}/promotions", "--address", cluster.address]
    process = start(arguments)
    output, _ = process.communicate(timeout=800)

    assert process.returncode == 0, output
    assert "2 epochs on 3 CPU workers" in output
    own = tmp_path / "promote" / "p"
    assert list(pd.read_csv(own / "history.csv")["workers"]) == [3, 3]
    assert not (own / "checkpoints").exists()
    model = afi_search.load(own / "model")
    from_bucket = read_checkpoint(f"s3://{bucket}/promotions/p")
    # Batch norm of two images of one pixel each makes weights whose outputs overflow for some.
    outputs = from_bucket(noise(8, 32)), model(noise(8, 32))
    torch.testing.assert_close(*outputs, rtol=0, atol=0, equal_nan=True)
    assert outputs[0].isfinite().any()
    assert from_bucket.facts.training["workers by epoch"] == [3, 3]
