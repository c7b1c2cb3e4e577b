"""Rows with and without padding."""

import pytest
import torch

from capfilt.med.ragged import Padding, Spans


@pytest.mark.parametrize("owners", [[0, 0, 0, 1, 3, 3], [2, 2], [0, 1, 2, 3], [0, 0, 1, 1, 2, 2, 3, 3]])
def test_rows_stand_next_to_each_other_in_their_group_and_come_back(owners):
    rows = torch.arange(1.0, 2 * len(owners) + 1).view(-1, 2)
    padding = Padding.of(torch.tensor(owners), 4)

    padded = padding.pad(rows)

    for group in range(4):
        own = rows[torch.tensor(owners) == group]
        assert padded[group, : len(own)].equal(own)
        assert not padded[group, len(own) :].any()
    assert padded.shape == (4, max(map(owners.count, owners)), 2)
    assert padding.pack(padded).equal(rows)


def test_spans_tell_where_groups_lie():
    spans = Spans.of(torch.tensor([0, 0, 2]), 4)
    assert (spans.cu_seqlens.tolist(), spans.max_seqlen) == ([0, 2, 2, 3, 3], 2)
    assert spans.rounded(128).max_seqlen == 128
    even = Spans.even(2, 5, torch.device("cpu"))
    assert (even.cu_seqlens.tolist(), even.max_seqlen) == ([0, 5, 10], 5)
    assert spans.cu_seqlens.dtype == even.cu_seqlens.dtype == torch.int32
