import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from ledgers import SHARD, complete, new_run, record, synthetic, web

from capfilt.config import Policy
from capfilt.errors import QueryError
from capfilt.query import open_run
from capfilt.stats import DIMENSIONS, csv_slices, cut

OTHER = replace(SHARD, id="00001", url="in/00001.tar", samples=2)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    run = new_run(tmp_path_factory.mktemp("slices"), [SHARD, OTHER])
    records = [
        record(0, width=100, height=2000, url="https://user@www.Shop.example:8080/a.jpg?x=1"),
        record(1, width=1024, height=1025, url="http://shop.example"),
        record(2, status="undecodable", width=None, height=None, format="", url=""),
        record(3, width=64, height=64, url="data:image/png;base64,AA//BB"),
    ]
    texts = [web(0, 0.9, "one"), synthetic(0, 0.1, "a b c d e f"), web(1, 1.0, "собака и кот"), synthetic(1, 0.3)]
    complete(run, SHARD, records, [*texts, web(3, 0.6, "<b>a</b> dog"), synthetic(3, 0.8, itc=None)])
    complete(run, OTHER, [record(0), record(1, status="too_large")], [web(0, 0.2, itc=-0.05), synthetic(0, None)])
    with open_run(run.root, languages=True) as opened:
        yield opened


def counted(opened, *by, **options):
    return {part.names: (part.scored, part.kept) for part in cut(opened, by, **options).parts}


def test_a_part_holds_what_was_scored_kept_rejected_and_failed(opened):
    first, second = cut(opened, ["shard"]).parts

    assert (first.names, first.scored, first.kept) == (("00000",), 6, 4)
    assert (first.rejected, first.failed, first.noise) == ({"low_itm": 2}, {"undecodable": 1}, pytest.approx(1 / 3))
    assert (second.rejected, second.failed) == ({"low_itm": 1, "not_scored": 1}, {"too_large": 1})


def test_failed_samples_stand_apart_where_a_text_is_asked_for(opened):
    assert counted(opened, "source") == {("web",): (4, 3), ("synthetic",): (4, 1), (None,): (0, 0)}


def test_domains_are_hosts_without_what_stands_beside_them(opened):
    assert counted(opened, "domain") == {("shop.example",): (4, 2), ("example.org",): (2, 0), (None,): (2, 2)}


def test_words_are_those_of_the_cleaned_text_in_ranges(opened):
    assert counted(opened, "words", where="source = 'web'") == {("1-2",): (2, 2), ("3-5",): (2, 1)}
    assert [part.names for part in cut(opened, ["words"]).parts] == [("1-2",), ("3-5",), ("6-10",), (None,)]


def test_sizes_are_ranges_of_the_shorter_side_in_their_order(opened):
    names = [part.names[0] for part in cut(opened, ["size"]).parts]

    assert names == ["0-63", "64-127", "1024+", None]


def test_scores_are_cut_at_tenths_and_an_edge_counts_upwards(opened):
    assert counted(opened, "itm", where="itm IS NOT NULL") == {
        ("0.1 to 0.2",): (1, 0),
        ("0.2 to 0.3",): (1, 0),
        ("0.3 to 0.4",): (1, 0),
        ("0.6 to 0.7",): (1, 1),
        ("0.8 to 0.9",): (1, 1),
        ("0.9 to 1.0",): (2, 2),
    }
    names = [part.names[0] for part in cut(opened, ["itc"]).parts]
    assert names == ["-0.1 to 0.0", "0.1 to 0.2", "0.2 to 0.3", None]


def test_a_score_that_misses_an_edge_by_the_least_is_below_it_as_the_policy_has_it(tmp_path):
    run, below = new_run(tmp_path, [replace(SHARD, samples=2)]), float(np.nextafter(np.float32(0.7), np.float32(0)))
    texts = [web(0, 0.7, itc=-0.3), web(1, below, itc=float(np.nextafter(np.float32(-0.3), np.float32(-1))))]
    complete(run, replace(SHARD, samples=2), [record(0), record(1)], texts)

    with open_run(run.root, Policy(web_itm=0.7)) as opened:
        assert counted(opened, "itm") == {("0.6 to 0.7",): (1, 0), ("0.7 to 0.8",): (1, 1)}
        assert counted(opened, "itc") == {("-0.4 to -0.3",): (1, 0), ("-0.3 to -0.2",): (1, 1)}


def test_scripts_and_languages_are_told_apart(opened):
    assert counted(opened, "script", where="source = 'web'") == {("Latin",): (3, 2), ("Cyrillic",): (1, 1)}
    assert ("en",) in counted(opened, "language")


@pytest.mark.parametrize("by", DIMENSIONS)
def test_every_dimension_counts_every_text_and_every_failed_sample_once(opened, by):
    slices = cut(opened, [by])

    assert sum(part.scored for part in slices.parts) == slices.total.scored == 8
    assert sum(sum(part.failed.values()) for part in slices.parts) == 2
    assert sum(part.kept for part in slices.parts) == slices.total.kept == 4


def test_several_dimensions_cut_crosswise(opened):
    assert counted(opened, "source", "shard", where="source = 'web'") == {
        ("web", "00000"): (3, 3),
        ("web", "00001"): (1, 0),
    }


def test_what_is_left_out_is_counted_together(opened):
    slices = cut(opened, ["shard", "source"], top=1)

    assert [part.names for part in slices.parts] == [("00000", "synthetic")]
    assert (slices.left_out, slices.others.scored, slices.others.kept) == (5, 5, 3)
    assert slices.others.failed == {"too_large": 1, "undecodable": 1}


def test_a_condition_that_none_meets_leaves_no_part(opened):
    slices = cut(opened, ["source"], where="false")

    assert (slices.parts, slices.total.scored, slices.total.noise) == ([], 0, 0.0)


def test_an_unknown_dimension_is_told_with_those_there_are(opened):
    with pytest.raises(QueryError, match="by 'colour': a run is cut by one of source, captioner, round"):
        cut(opened, ["colour"])


def test_languages_must_have_been_asked_for(tmp_path):
    with open_run(new_run(tmp_path).root) as opened, pytest.raises(QueryError, match="open it with languages=True"):
        cut(opened, ["language"])


def test_json_and_csv_hold_every_figure(opened):
    slices = cut(opened, ["shard"])

    first = json.loads(json.dumps(slices.to_json()))["parts"][0]
    assert first == {
        "shard": "00000",
        "scored": 6,
        "kept": 4,
        "rejected": {"low_itm": 2},
        "failed": {"undecodable": 1},
        "noise": pytest.approx(1 / 3),
    }
    rows = list(csv.DictReader(csv_slices(slices).splitlines()))
    assert [row["shard"] for row in rows] == ["00000", "00001"]
    assert (rows[1]["low_itm"], rows[1]["not_scored"], rows[1]["failed_too_large"]) == ("1", "1", "1")
    assert (rows[0]["scored"], rows[0]["kept"], rows[0]["noise"]) == ("6", "4", "0.333333")


def test_a_domain_of_the_csv_cannot_steer_a_terminal(tmp_path):
    run = new_run(tmp_path)
    urls = ["http://a\x1b[2J\u202egpj.example/1", "", "", ""]
    complete(run, SHARD, [record(n, url=url) for n, url in enumerate(urls)], [web(0, 0.9)])

    with open_run(run.root) as opened:
        sheet = csv_slices(cut(opened, ["domain"]))

    assert sheet.splitlines()[1].startswith("a<U+001B>[2j<U+202E>gpj.example,1,1,")


def test_csv_of_some_parts_ends_with_the_others_so_that_it_adds_up(opened):
    slices = cut(opened, ["shard", "source"], top=1)

    rows = list(csv.DictReader(csv_slices(slices).splitlines()))

    assert [(row["shard"], row["source"]) for row in rows] == [("00000", "synthetic"), ("(5 others)", "")]
    assert [int(rows[1][name]) for name in ("scored", "kept", "low_itm", "failed_too_large")] == [5, 3, 1, 1]
    assert sum(int(row["scored"]) for row in rows) == slices.total.scored
