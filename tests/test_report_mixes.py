"""Samples as the what-if sees them; that its mixes count as the policy selects is held by test_report_whatif."""

import math

import numpy as np
import pytest
from ledgers import SHARD, complete, new_run, record, synthetic, web

from capfilt.config import Policy
from capfilt.query import open_run
from capfilt.report.mixes import Samples, mix, read_samples

EDGES = (0.0, 0.3, 0.7)


def samples(folder, **rules) -> Samples:
    """Return four samples: own text and captions, captions alone, an own text alone, and one that a caption repeats."""
    run = new_run(folder)
    candidates = [
        *(web(0, 0.7), synthetic(0, 0.3, "low", 0), synthetic(0, 0.9, "high", 1)),
        *(synthetic(1, 0.29, "b", 0), synthetic(1, 0.5, "c", 1), synthetic(1, 0.4, "B", 2)),
        web(2, 0.1),
        *(web(3, 0.6, "a dog"), synthetic(3, 0.8, "A dog", 0), synthetic(3, 0.2, "a cat", 1)),
    ]
    complete(run, SHARD, [record(n) for n in range(4)], candidates)
    with open_run(run.root, Policy(**rules)) as opened:
        (found,) = read_samples(opened, EDGES)
    order = np.argsort(found.own)  # of the samples, which come in any order; NaN, of captions alone, is the last
    assert [round(float(score), 2) for score in found.own[order][:3]] == [0.1, 0.6, 0.7]
    assert math.isnan(found.own[order][3])
    return found


def scores(found, captions) -> dict[float, list[float]]:
    """Return the scores of captions by that of the own text beside them, 0 where there is none."""
    table: dict[float, list[float]] = {}
    for row, itm in zip(captions.sample, captions.itm, strict=True):
        table.setdefault(round(float(np.nan_to_num(found.own[row])), 2), []).append(round(float(itm), 2))
    return table


def test_captions_come_from_the_best_down_without_repetitions(tmp_path):
    found = samples(tmp_path)

    assert scores(found, found.captions) == {0.7: [0.9, 0.3], 0.0: [0.5, 0.4], 0.6: [0.8, 0.2]}
    assert scores(found, found.others) == {0.7: [0.9, 0.3], 0.0: [0.5, 0.4], 0.6: [0.2]}
    assert found.captions.rank.tolist() == [0, 1] * 3
    assert scores(found, found.captions.firsts()) == {0.7: [0.9], 0.0: [0.5], 0.6: [0.8]}


def test_where_repetitions_stay_all_texts_stand_for_themselves(tmp_path):
    found = samples(tmp_path, drop_duplicates=False)

    assert scores(found, found.others)[0.0] == [0.5, 0.4, 0.29]
    assert scores(found, found.others)[0.6] == [0.8, 0.2]


def test_a_bin_holds_its_lower_edge_as_it_is_stored(tmp_path):
    """0.3 and 0.7 are no float32: what the ledger holds of them lies beside them."""
    found = samples(tmp_path)

    bins = dict(zip(np.round(found.captions.itm, 2).tolist(), found.captions.bin.tolist(), strict=True))
    assert {round(score, 2): at for score, at in bins.items()} == {0.9: 2, 0.3: 1, 0.5: 1, 0.4: 1, 0.8: 2, 0.2: 0}
    own = {round(float(score), 2): int(at) for score, at in zip(found.own, found.bin, strict=True) if score > 0}
    assert own == {0.7: 2, 0.1: 0, 0.6: 1}


@pytest.mark.parametrize(
    ("name", "own", "alone", "beside", "rivals"),
    [
        ("both", True, 6, 5, 0),
        ("synthetic_only", False, 6, 6, 0),
        ("web_only", True, 0, 0, 0),
        ("web_else_synthetic", True, 6, 0, 0),
        ("best", True, 3, 1, 1),  # 0.9 is better than its own text of 0.7; of the other sample 0.2 is not than 0.6
    ],
)
def test_each_mix_takes_captions_alone_and_beside_an_own_text(tmp_path, name, own, alone, beside, rivals):
    policy = Policy(mix=name)
    mixed = mix(samples(tmp_path), policy)

    counts = (len(mixed.alone.itm), len(mixed.beside.itm), len(mixed.rivals.itm))
    assert (mixed.own, *counts) == (own, alone, beside, rivals)
