"""What another policy gains and loses, against counts by hand and against policy.select."""

import pytest
from ledgers import complete, image, input_shard, new_run, record, records_of, synthetic, web

from capfilt.config import Policy
from capfilt.ledger import read_candidates
from capfilt.policy import select
from capfilt.records import Candidate, Shard
from capfilt.recut import Difference, SourceDifference, difference, render_difference
from capfilt.recut.difference import Move


@pytest.fixture
def run(tmp_path):
    """A run of two shards, one with a control text that every threshold would let in."""
    shards = [Shard(id_, f"in/{id_}.tar", 1000, "d16e57", 3) for id_ in ("00000", "00001")]
    run = new_run(tmp_path, shards)
    rows = [web(0, 0.9, "red car"), synthetic(0, 0.4, "a car"), web(1, 0.6, "click here"), synthetic(1, 0.8, "a dog")]
    control = Candidate(1, "key1", "control", 0, "red car", itm=1.0)
    complete(run, shards[0], [record(n) for n in range(3)], [*rows, control])
    complete(run, shards[1], [record(n) for n in range(3)], [web(2, 0.7, "a <b>tree</b>")])
    return run


def test_gains_losses_and_reasons_are_counted_by_source(run):
    found = difference(run, Policy(), Policy(name="other", web_itm=0.65, synthetic_itm=0.3))

    assert found.sources == {
        "web": SourceDifference(scored=3, kept_before=3, kept_after=2, gained=0, lost=1),
        "synthetic": SourceDifference(scored=2, kept_before=1, kept_after=2, gained=1, lost=0),
    }
    assert found.moves == [Move("synthetic", "low_itm", None, 1), Move("web", None, "low_itm", 1)]
    assert found.settings == {"web_itm": (0.5, 0.65), "synthetic_itm": (0.5, 0.3)}
    assert (found.shards, found.planned, found.samples) == (2, 2, 6)
    assert [example.text for example in found.gained] == ["a car"]
    assert [(e.shard, e.position, e.text, e.before, e.after) for e in found.lost] == [
        ("00000", 1, "click here", None, "low_itm")
    ]


def test_samples_come_and_go_with_their_last_text(run):
    found = difference(run, Policy(), Policy(mix="synthetic_only", synthetic_itm=0.3))

    names = ("before", "after", "gained", "lost")
    assert [getattr(found, f"samples_{name}") for name in names] == [3, 2, 0, 1]
    assert {move.after for move in found.moves} == {None, "mix"}


def test_the_tables_show_what_comes_and_goes_the_most_texts_first(run):
    shown = render_difference(difference(run, Policy(), Policy(mix="synthetic_only", synthetic_itm=0.3)))

    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        "web 3 3 100.0 % 0 0.0 % 0 3",
        "synthetic 2 1 50.0 % 2 100.0 % 1 0",
        "samples with a kept text 6 3 50.0 % 2 33.3 % 0 1",
    ):
        assert line in lines
    assert lines.index("web kept mix 3") + 1 == lines.index("synthetic low_itm kept 1")


def test_an_example_can_be_looked_up_and_its_score_does_not_look_like_a_cut_that_rejects_it(tmp_path):
    run = new_run(tmp_path, [Shard("00000", "in/00000.tar", 1000, "d16e57", 1)])
    complete(run, run.plan()[0], [record(0)], [web(0, 0.49999, "a dog")])

    shown = render_difference(difference(run, Policy(web_itm=0.4), Policy()))

    assert "  web of 00000/0 (key0)  itm 0.4999  kept, then low_itm  a dog" in shown


def test_the_counts_are_those_of_the_policy(run):
    policies = Policy(min_words=2, web_itm=0), Policy(mix="best")
    found = difference(run, *policies)

    tables = [read_candidates(run, shard) for shard in run.plan()]
    kept = [sum(select(table, policy)["kept"].to_pylist().count(True) for table in tables) for policy in policies]
    assert [sum(getattr(s, f"kept_{name}") for s in found.sources.values()) for name in ("before", "after")] == kept


def test_equal_policies_differ_in_nothing(run):
    found = difference(run, Policy(), Policy(name="other"))

    assert (found.moves, found.gained, found.lost, found.settings) == ([], [], [], {})
    assert "both keep the same" in render_difference(found)


def test_examples_are_drawn_by_the_seed_and_stay_when_the_cut_moves(tmp_path):
    shard = Shard("00000", "in/00000.tar", 1000, "d16e57", 200)
    run = new_run(tmp_path, [shard])
    complete(run, shard, [record(n) for n in range(200)], [web(n, n / 200, f"text {n}") for n in range(200)])

    def lost(threshold: float, seed: int = 0) -> list[int]:
        found: Difference = difference(run, Policy(web_itm=0), Policy(web_itm=threshold), examples=20, seed=seed)
        return [example.position for example in found.lost]

    assert lost(0.5) == lost(0.5)
    assert len(set(lost(0.5))) == 20
    assert lost(0.5, seed=1) != lost(0.5)
    assert [position for position in lost(1) if position < 100] == lost(0.5)[: sum(p < 100 for p in lost(1))]


def test_examples_are_drawn_evenly_from_all_shards_and_fewer_are_the_first_of_more(tmp_path):
    shards = [Shard(f"0000{n}", f"in/0000{n}.tar", 1000, "d16e57", 50) for n in range(2)]
    run = new_run(tmp_path, shards)
    for shard in shards:
        complete(run, shard, [record(n) for n in range(50)], [web(n, 0.5, f"text {n}") for n in range(50)])

    def gained(examples: int) -> list[tuple[str, int]]:
        found = difference(run, Policy(web_itm=1), Policy(web_itm=0.5), examples=examples)
        return [(example.shard, example.position) for example in found.gained]

    everything = gained(1000)
    assert sorted(everything) == [(shard.id, n) for shard in shards for n in range(50)]
    assert gained(20) == everything[:20]
    first, second = ([n for shard, n in everything if shard == each.id] for each in shards)
    assert first != second  # each shard has chances of its own
    assert 5 <= sum(shard == "00000" for shard, _ in everything[:20]) <= 15


def test_a_shard_in_work_is_left_out_and_said(tmp_path):
    shards = [input_shard(tmp_path, [image(n) for n in range(2)], id_=id_) for id_ in ("00000", "00001")]
    run = new_run(tmp_path, shards)
    complete(run, shards[0], records_of(shards[0]), [web(0, 0.9)])

    found = difference(run, Policy(), Policy(web_itm=1))

    assert (found.shards, found.planned, found.sources["web"].lost) == (1, 2, 1)
    assert "1 of 2 shards complete" in render_difference(found)


def test_hostile_text_is_shown_without_what_could_steer_a_terminal(tmp_path):
    shard = Shard("00000", "in/00000.tar", 1000, "d16e57", 1)
    run = new_run(tmp_path, [shard])
    complete(run, shard, [record(0)], [web(0, 0.9, "a \x1b[2Jcar \u202egnp.exe <b>x</b>")])

    shown = render_difference(difference(run, Policy(), Policy(web_itm=1)))

    assert "a [2Jcar gnp.exe x" in shown
    assert not {"\x1b", "\u202e"} & set(shown)
