import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import SHARD, commit, complete, config, new_run, record, synthetic, web

from capfilt.config import Policy
from capfilt.errors import QueryError
from capfilt.query import open_run
from capfilt.runs import start_run
from capfilt.stats import Stats, summarise

OTHER = replace(SHARD, id="00001", url="in/00001.tar", samples=2)
UNFINISHED = replace(SHARD, id="00002", url="in/00002.tar")


def of(run, policy=None, where=None, **options) -> Stats:
    with open_run(run.root, policy, **options) as opened:
        return summarise(opened, where)


@pytest.fixture
def run(tmp_path):
    run = new_run(tmp_path, [SHARD, OTHER, UNFINISHED])
    records = [record(0), record(1, text_status="missing"), record(2, status="too_large"), record(3)]
    complete(run, SHARD, records, [web(0, 0.9), synthetic(0, 0.1), synthetic(1, 0.6), web(3, 0.2), synthetic(3, 0.3)])
    complete(run, OTHER, [record(0), record(1)], [web(0, 0.7, text=""), synthetic(0, 0.8)])
    commit(run, UNFINISHED, [0, 2, 4], [record(position) for position in range(4)], [web(0, 1.0)])
    return run


def test_everything_is_counted_over_the_complete_shards(run):
    stats = of(run)

    assert (stats.shards, stats.planned, stats.samples, stats.samples_kept) == (2, 3, 6, 3)
    assert stats.statuses == {"ok": 5, "too_large": 1}
    assert stats.text_statuses == {"missing": 1, "ok": 5}
    assert stats.tokens == 20
    assert stats.seconds == {"caption": 1.0, "score": 0.5}
    own, written = stats.sources["web"], stats.sources["synthetic"]
    assert (own.scored, own.kept, own.rejected) == (3, 1, {"low_itm": 1, "too_short": 1})
    assert (written.scored, written.kept, written.rejected) == (4, 2, {"low_itm": 2})
    assert (own.noise, written.noise) == (pytest.approx(2 / 3), 0.5)


def test_rates_are_counts_over_seconds_of_the_stage(run):
    stats = of(run)

    assert stats.rates == {"caption": 6.0, "score": 12.0}
    assert stats.tokens_per_second == 20.0


def test_another_policy_is_tried_without_changing_the_run(run):
    assert of(run, Policy(web_itm=0.0, synthetic_itm=0.0, min_words=0)).sources["web"].kept == 3
    assert of(run).sources["web"].kept == 1


def test_quantiles_are_those_of_all_scores(run):
    scores = of(run).sources["synthetic"].scores

    assert scores["itm"] == {"p5": 0.1, "p25": 0.1, "p50": 0.3, "p75": 0.6, "p95": 0.8}
    assert scores["itc"] == dict.fromkeys(("p5", "p25", "p50", "p75", "p95"), 0.125)


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40))
def test_quantiles_are_exact_to_a_step(tmp_path_factory, scores):
    shard = replace(SHARD, samples=len(scores))
    run = new_run(tmp_path_factory.mktemp("run"), [shard])
    complete(run, shard, [record(i) for i in range(len(scores))], [web(i, score) for i, score in enumerate(scores)])

    found = of(run).sources["web"].scores["itm"]

    exact = np.percentile(np.float32(scores), [5, 25, 50, 75, 95], method="inverted_cdf")
    np.testing.assert_allclose(list(found.values()), exact, atol=0.51e-4)


def test_a_score_that_no_filter_gave_has_no_quantiles(tmp_path):
    run = new_run(tmp_path)
    complete(run, SHARD, [record(position) for position in range(4)], [web(0, itc=None)])

    assert list(of(run).sources["web"].scores) == ["itm"]


def test_a_run_without_a_complete_shard_has_empty_statistics(tmp_path):
    stats = of(new_run(tmp_path))

    assert (stats.shards, stats.samples, stats.sources, stats.rates) == (0, 0, {}, {})


def test_the_policy_is_the_runs_own(tmp_path):
    run = new_run(tmp_path)
    complete(run, SHARD, [record(position) for position in range(4)], [web(0, 0.75)])
    start_run(config(tmp_path, policy={"name": "strict", "web_itm": 0.8}), {"captioner": "c0ffee", "filter": "f117e4"})

    stats = of(run)

    assert (stats.policy, stats.sources["web"].kept) == ("strict", 0)


def test_committed_units_count_when_they_are_asked_for(run):
    stats = of(run, unfinished=True)

    assert (stats.shards, stats.samples, stats.sources["web"].scored) == (3, 10, 4)


def test_a_score_that_misses_an_edge_by_the_least_is_in_the_band_below(tmp_path):
    run, below = new_run(tmp_path, [replace(SHARD, samples=2)]), float(np.nextafter(np.float32(0.7), np.float32(0)))
    complete(run, replace(SHARD, samples=2), [record(0), record(1)], [web(0, 0.7, itc=-1.0), web(1, below, itc=1.0)])

    stats = of(run, Policy(web_itm=0.7)).sources["web"]

    assert stats.kept == 1
    assert [n for n, count in enumerate(stats.bands["itm"]) if count] == [13, 14]  # 0.65 to 0.7, 0.7 to 0.75
    assert (stats.scores["itm"]["p5"], stats.scores["itm"]["p95"]) == (0.69995, 0.7)
    assert (stats.bands["itc"][0], stats.bands["itc"][-1]) == (1, 1)


def test_bands_count_every_score_once(run):
    bands = of(run).sources["synthetic"].bands

    assert [n for n, count in enumerate(bands["itm"]) if count] == [2, 6, 12, 16]  # 0.1, 0.3, 0.6, 0.8
    assert sum(bands["itm"]) == sum(bands["itc"]) == 4


@pytest.mark.parametrize("where", [None, "true"])
def test_statuses_and_reasons_stand_in_the_order_of_their_names(tmp_path, where):
    run, shard = new_run(tmp_path, [replace(SHARD, samples=8)]), replace(SHARD, samples=8)
    statuses = ["undecodable", "too_large", "ok", "ok", "ok", "missing", "truncated", "bomb"]
    texts = [web(2, text=""), web(3, 0.1), web(4, itc=None)]
    complete(run, shard, [record(n, status=status) for n, status in enumerate(statuses)], texts)

    stats = of(run, Policy(web_itc=0.0), where)

    assert list(stats.statuses) == ["bomb", "missing", "ok", "too_large", "truncated", "undecodable"]
    assert list(stats.sources["web"].rejected) == ["low_itm", "not_scored", "too_short"]


def test_a_condition_limits_texts_and_the_samples_that_they_belong_to(run):
    stats = of(run, where="itm < 0.5")

    assert (stats.where, stats.samples, stats.samples_kept) == ("itm < 0.5", 2, 0)
    assert stats.statuses == {"ok": 2}
    assert (stats.sources["web"].scored, stats.sources["synthetic"].scored) == (1, 2)
    assert (stats.text_statuses, stats.seconds, stats.tokens) == ({}, {}, 10)


def test_a_condition_can_be_on_samples_that_failed(run):
    stats = of(run, where="status <> 'ok'")

    assert (stats.samples, stats.statuses, stats.sources) == (1, {"too_large": 1}, {})


def test_a_condition_that_all_meet_changes_no_count_of_texts(run):
    assert of(run, where="true").sources == of(run).sources


@pytest.mark.parametrize("where", ["skore > 1", "itm > 'a'"])
def test_what_is_no_condition_is_told_with_the_columns(run, where):
    with pytest.raises(QueryError, match="the columns are shard, position"):
        of(run, where=where)


def test_the_json_holds_every_figure(run):
    values = json.loads(json.dumps(of(run).to_json()))

    assert values["sources"]["web"]["rejected"] == {"low_itm": 1, "too_short": 1}
    assert values["sources"]["synthetic"]["noise"] == 0.5
    assert values["samples_per_second"] == {"caption": 6.0, "score": 12.0}
    assert values["tokens_per_second"] == 20.0
