"""What benchmarks/rank.py makes of a table of trainings and of scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.rank import CEILING, compared, plot


def table(noise: float) -> pd.DataFrame:
    """Return trainings of 15 networks with 3 seeds, the 4th epoch of which is the last."""
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "architecture": f"net{network:02}",
            "seed": seed,
            "epoch": epoch,
            "validation_accuracy": network / 30 + noise * random.normal() * (5 - epoch),
            "test_accuracy": network / 30 + noise * random.normal(),
        }
        for network in range(15)
        for seed in range(3)
        for epoch in (1, 2, 3, 4)
    )


def scores() -> pd.DataFrame:
    size = np.random.default_rng(1).permutation(15)
    names = [f"net{network:02}" for network in range(15)]
    return pd.DataFrame(
        {"macs": size, "inherited/100": np.arange(15), "inherited/101": -np.arange(15)}, index=names
    )


def test_seeds_of_a_score_are_averaged_and_each_training_is_held_against_the_others() -> None:
    means = compared(table(noise=0), scores(), {"inherited": 4.0})
    assert means.loc["inherited", ["tau", "cost", "seeds"]].tolist() == [pytest.approx(0), 4.0, 2]
    assert means.loc[CEILING, ["tau", "cost", "seeds"]].tolist() == [pytest.approx(1), 15.0, 3]
    assert means.loc["after 3 epochs", "cost"] == 15 * 3 / 4
    assert "after 10 epochs" not in means.index


def test_a_seed_does_not_know_its_own_luck() -> None:
    noisy = compared(table(noise=0.2), scores(), {})
    assert noisy.loc[CEILING, "tau"] < 0.7


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    plot(compared(table(noise=0.02), scores(), {"inherited": 4.0}), tmp_path / "a.png", "title")
    assert (tmp_path / "a.png").stat().st_size > 10_000
