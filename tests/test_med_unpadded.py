"""Texts without their padding. That their states are those of padded texts is shown in test_med_text.py."""

import torch

from capfilt.med.unpadded import GROUP, LIST, TEXTS, UnpaddedTexts

IDS = torch.tensor([[5, 6, 0], [7, 0, 0], [8, 9, 4]])
OWNERS = torch.tensor([0, 0, 2])  # of three images, of which the second has no text


def test_real_tokens_stand_behind_each_other_with_their_positions():
    texts = UnpaddedTexts.of(IDS, IDS > 0, OWNERS, 3)

    assert texts.ids.tolist() == [5, 6, 7, 8, 9, 4]
    assert texts.positions.tolist() == [0, 1, 0, 0, 1, 2]
    assert texts.ids[texts.starts].tolist() == [5, 7, 8]


def test_lists_have_round_lengths_and_what_fills_them_up_belongs_to_no_text_and_no_image():
    texts = UnpaddedTexts.varlen(IDS, IDS > 0, OWNERS, 3, 17)

    assert texts.ids.tolist() == [5, 6, 7, 8, 9, 4] + [0] * (LIST - 6)
    assert len(texts.starts) == len(texts.owners) == TEXTS
    own, image = texts.tokens.texts.queries, texts.tokens.images
    assert own.cu_seqlens.tolist() == [0, 2, 3] + [6] * (TEXTS - 2)
    assert image.queries.cu_seqlens.tolist() == [0, 3, 3, 6]
    assert image.seen.cu_seqlens.tolist() == [0, 17, 34, 51]
    assert own.max_seqlen == image.queries.max_seqlen == GROUP
