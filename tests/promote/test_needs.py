from __future__ import annotations

from afi_search.engine.promotion_worker import Probe
from afi_search.promote.promotion import Needs

PROBE = Probe(model_speed=100, loader_speed=1000, memory=2 * 10**9, weights=10**6, on_gpu=True)


def test_time_is_training_and_testing_over_all_workers() -> None:
    needed = Needs(PROBE, workers=2, epochs=10, train=1000, validation=300, averages=False)

    assert needed.seconds == 10 * (1000 / 100 + 300 / 300) / 2
    assert needed.disk == 4 * 10**6 * (3 * 2 + 1)


def test_the_slower_of_model_and_loader_counts() -> None:
    slow = Probe(100, 50, 1, 1, True)
    needed = Needs(slow, workers=1, epochs=1, train=100, validation=50, averages=True)

    assert needed.seconds == 100 / 50 + 50 / 50
    assert needed.disk == 4 * (3 * 3 + 1)
    assert "the loader binds" in str(needed)


def test_the_sentence_says_speeds_time_memory_and_disk() -> None:
    needed = Needs(PROBE, workers=8, epochs=90, train=1_281_167, validation=50_000, averages=False)
    text = str(needed)

    for part in (
        "90 epochs on 8 GPUs",
        " h ",
        "2.00 GB",
        "0.03 GB",
        "100 images/s",
        "1,000 images/s",
    ):
        assert part in text
    assert "the model binds" in text
