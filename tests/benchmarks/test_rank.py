"""What benchmarks/rank.py makes of a table of trainings and of scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.rank import CEILING, compared, network_effects, plot


def table(noise: float) -> pd.DataFrame:
    """Return trainings of 15 networks with 3 seeds, the 4th epoch of which is the last."""
    random = np.random.default_rng(0)
    size = random.permutation(15)
    return pd.DataFrame(
        {
            "architecture": f"net{network:02}",
            "seed": seed,
            "epoch": epoch,
            "validation_accuracy": network / 30 + noise * random.normal() * (5 - epoch),
            "test_accuracy": network / 30 + noise * random.normal(),
            "cpu_seconds": 5.0 if seed else 0.1,
            "device": "2 cores" if seed else "1 x NVIDIA H100",
            "macs": size[network],
            "params": size[network],
        }
        for network in range(15)
        for seed in range(3)
        for epoch in (1, 2, 3, 4)
    )


def scores(epochs: int = 8) -> pd.DataFrame:
    """Return those of two supernets, one right and one wrong; each cost four trainings."""
    return pd.DataFrame(
        {
            "architecture": f"net{network:02}",
            "epochs": epochs,
            "seed": seed,
            "inherited": sign * network,
            **dict.fromkeys(("naswot", "zico", "synflow"), network),
            "training_seconds": 65.0,
            "inherited_seconds": 1.0,
            "cheap_seconds": 4.0,
        }
        for seed, sign in ((100, 1), (101, -1))
        for network in range(15)
    )


def test_seeds_of_a_score_are_averaged_and_each_training_is_held_against_the_others() -> None:
    means = compared(table(noise=0), scores())
    assert list(means.loc["inherited, 8 epochs", ["tau", "cost", "seeds"]]) == [
        pytest.approx(0),
        4.0,
        2,
    ]
    assert list(means.loc["zico", ["tau", "cost", "seeds"]]) == [pytest.approx(1), 3.0, 2]
    assert list(means.loc[CEILING, ["tau", "cost", "seeds"]]) == [pytest.approx(1), 15.0, 3]
    assert means.loc["after 3 epochs", "cost"] == 15 * 3 / 4
    assert "after 10 epochs" not in means.index


def test_supernets_of_fewer_and_of_more_epochs_stand_beside_each_other() -> None:
    longer = scores(24).query("seed == 100").assign(training_seconds=200.0)
    means = compared(table(noise=0), pd.concat([scores(), longer]))
    taus = means["tau"]
    assert taus["inherited, 8 epochs"] == pytest.approx(0)
    assert taus["inherited, 24 epochs"] == pytest.approx(1)
    assert means["cost"]["inherited, 24 epochs"] == (200 + 15) / 20
    assert means["cost"]["zico"] == 3.0 and means["seeds"]["zico"] == 2


def test_a_seed_does_not_know_its_own_luck() -> None:
    assert compared(table(noise=0.2), scores())["tau"][CEILING] < 0.7


def test_what_seeds_have_in_common_is_no_merit_of_the_networks_that_have_them() -> None:
    effects = pd.DataFrame({0: [0.1, 0.2, 0.3], 1: [0.6, 0.7, None], 2: [0.15, None, None]})
    found = network_effects(effects)
    assert found.diff().dropna().tolist() == pytest.approx([0.1, 0.1])


def test_a_table_that_is_not_complete_is_compared_as_far_as_it_is() -> None:
    some = table(noise=0)
    some = some[(some["seed"] == 0) | (some["architecture"] < "net09")]
    some = some[(some["seed"] < 2) | (some["architecture"] < "net03")]
    means = compared(some, scores())
    assert means.loc["inherited, 8 epochs", "count"] == 15
    assert list(means.loc[CEILING, ["tau", "count", "seeds"]]) == [pytest.approx(1), 9, 2]


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    plot(compared(table(noise=0.02), scores()), tmp_path / "a.png", "title")
    assert (tmp_path / "a.png").stat().st_size > 10_000
