from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afi_search.data.splits import apportion, held_out

counts = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@given(counts, st.data())
@settings(max_examples=60, deadline=None)
def test_shares_add_up_and_stay_within_one_of_proportion(counts, data):
    total = data.draw(st.integers(0, sum(counts)))

    shares = apportion(counts, total)

    assert sum(shares) == total
    for share, count in zip(shares, counts, strict=True):
        assert abs(share - total * count / sum(counts)) < 1
        assert 0 <= share <= count


@given(counts, st.data())
@settings(max_examples=40, deadline=None)
def test_held_out_and_kept_are_a_partition_with_each_class_in_its_share(counts, data):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    total = data.draw(st.integers(0, sum(counts)))

    kept, held = held_out(labels, total)

    assert len(held) == total
    assert torch.cat([kept, held]).sort().values.tolist() == list(range(len(labels)))
    held_per_class = torch.bincount(labels[held], minlength=len(counts)).tolist()
    assert held_per_class == apportion(counts, total)


def test_the_choice_never_changes():
    """Another order would move images between training and validation in studies people have."""
    labels = torch.arange(4).repeat(6)

    assert held_out(labels, 8)[1].tolist() == [0, 5, 6, 8, 14, 15, 17, 23]


def test_equal_remainders_go_to_the_lower_class():
    assert apportion([10, 10, 10], 4) == [2, 1, 1]
