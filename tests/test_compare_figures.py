import json
from dataclasses import replace

import pytest
from ledgers import CHECKPOINTS, SHARD, complete, config, record, synthetic, web

from capfilt.compare import compare
from capfilt.config import Policy
from capfilt.query import open_run
from capfilt.runs import start_run


def run_of(folder, records, candidates, round_=0):
    shard = replace(SHARD, samples=len(records), id=f"s{round_}")
    run = start_run(config(folder, round=round_, run=f"{folder}/run{round_}"), CHECKPOINTS)
    run.write_plan([shard])
    complete(run, shard, records, sorted(candidates, key=lambda candidate: candidate.position))
    return run


def compared(first, second, policy=None, examples=5):
    with open_run(first.root) as a, open_run(second.root, policy) as b:
        return compare(a, b, examples)


@pytest.fixture
def rounds(tmp_path):
    """Two rounds: the second holds the images in another order, lacks the first's last, and has one of its own."""
    images = [record(n, image_sha256=f"{n:064x}") for n in range(4)]
    first = run_of(
        tmp_path,
        images,
        [
            *(web(0, 0.9), synthetic(0, 0.2, "a cat")),
            *(web(1, 0.3), synthetic(1, 0.6, "a dog"), synthetic(1, 0.7, "dogs", index=1)),
            *(web(2, 0.6), synthetic(2, 0.9, "a bird")),
            web(3, 0.9),
        ],
    )
    second = run_of(
        tmp_path,
        [
            record(0, image_sha256=images[2].image_sha256, key="other"),
            record(1, image_sha256=images[0].image_sha256, status="undecodable"),
            record(2, image_sha256=images[1].image_sha256),
            record(3, image_sha256="f" * 64),
        ],
        [
            *(web(0, 0.4), synthetic(0, 0.9, "a bird")),
            *(web(2, 0.8), synthetic(2, 0.1, "a dog on a sofa")),
            web(3, 1.0),
        ],
        round_=1,
    )
    return first, second


def test_samples_are_matched_by_their_image_alone(rounds):
    found = compared(*rounds)

    assert (found.samples, found.matched, found.only_first, found.only_second) == ((4, 4), 3, 1, 1)
    assert found.statuses == [("ok", "undecodable", 1)]
    assert (found.kept_by_both, found.gained, found.lost) == (2, 0, 1)


def test_what_the_other_order_loses_and_lacks_is_gained_and_its_own(rounds):
    found, back = compared(*rounds), compared(*reversed(rounds))

    assert (back.kept_by_both, back.gained, back.lost) == (2, 1, 0)
    assert back.statuses == [("undecodable", "ok", 1)]
    for name, there in found.sources.items():
        here = back.sources[name]
        assert (here.matched, here.changed, here.kept_by_both) == (there.matched, there.changed, there.kept_by_both)
        assert (here.gained, here.lost) == (there.lost, there.gained)
        assert (here.only_first, here.only_second) == (there.only_second, there.only_first)
        assert here.shifts["itm"].mean == -there.shifts["itm"].mean
    assert [example.texts for example in back.gained_examples] == [e.texts[::-1] for e in found.lost_examples]


def test_texts_are_matched_by_source_and_caption_index(rounds):
    found = compared(*rounds).sources

    own, written = found["web"], found["synthetic"]
    assert (own.matched, own.only_first, own.only_second, own.changed) == (2, 1, 0, 0)
    assert (own.kept_by_both, own.gained, own.lost, own.rejected_by_both, own.agreement) == (0, 1, 1, 0, 0.0)
    assert (written.matched, written.only_first, written.only_second, written.changed) == (2, 2, 0, 1)
    assert (written.kept_by_both, written.gained, written.lost, written.agreement) == (1, 0, 1, 0.5)


def test_shifts_are_second_less_first(rounds):
    shift = compared(*rounds).sources["web"].shifts["itm"]

    assert (shift.texts, shift.mean) == (2, 0.15)
    assert shift.quantiles == {"p5": -0.2, "p25": -0.2, "p50": -0.2, "p75": 0.5, "p95": 0.5}


def test_examples_show_both_sides_the_largest_difference_first(rounds):
    found = compared(*rounds)

    gained = found.gained_examples[0]
    assert (gained.source, gained.shards, gained.positions) == ("web", ("s0", "s1"), (1, 2))
    assert (gained.reasons, gained.texts) == (("low_itm", None), ("a web text", "a web text"))
    assert [example.texts for example in found.lost_examples] == [
        ("a dog", "a dog on a sofa"),
        ("a web text", "a web text"),
    ]
    assert found.lost_examples[1].keys == ("key2", "key0")
    assert compared(*rounds, examples=1).lost_examples == found.lost_examples[:1]


def test_a_run_agrees_with_itself(rounds):
    found = compared(rounds[0], rounds[0])

    assert (found.matched, found.only_first, found.only_second, found.gained, found.lost) == (4, 0, 0, 0, 0)
    assert {source.agreement for source in found.sources.values()} == {1.0}
    assert (found.gained_examples, found.lost_examples) == ([], [])


def test_one_run_under_two_policies_differs_by_the_policies_alone(rounds):
    found = compared(rounds[0], rounds[0], Policy(name="strict", web_itm=0.8))

    assert found.policies == ("default", "strict")
    assert (found.sources["web"].lost, found.sources["synthetic"].lost) == (1, 0)
    assert found.sources["web"].shifts["itm"].quantiles == dict.fromkeys(("p5", "p25", "p50", "p75", "p95"), 0.0)


def test_copies_of_an_image_pair_up_one_by_one(tmp_path):
    same = {"image_sha256": "a" * 64}
    first = run_of(tmp_path, [record(n, **same) for n in range(3)], [web(n, 0.9) for n in range(3)])
    second = run_of(tmp_path, [record(n, **same) for n in range(2)], [web(n, 0.9) for n in range(2)], round_=1)

    found = compared(first, second)

    assert (found.matched, found.only_first, found.only_second) == (2, 1, 0)
    assert found.sources["web"].matched == 2


def test_samples_without_an_image_are_counted_and_never_matched(tmp_path):
    lost = record(0, image_sha256="", status="missing")
    first, second = (run_of(tmp_path, [lost], [], round_=n) for n in (0, 1))

    found = compared(first, second)

    assert (found.without_image, found.matched, found.only_first, found.sources) == ((1, 1), 0, 0, {})


def test_runs_of_other_images_have_nothing_in_common(tmp_path):
    first = run_of(tmp_path, [record(0)], [web(0)])
    second = run_of(tmp_path, [record(0, image_sha256="b" * 64)], [web(0)], round_=1)

    found = compared(first, second)

    assert (found.matched, found.only_first, found.only_second, found.sources) == (0, 1, 1, {})


def test_a_text_without_a_score_has_no_shift(tmp_path):
    first = run_of(tmp_path, [record(0)], [web(0, 0.9)])
    second = run_of(tmp_path, [record(0)], [web(0, None)], round_=1)

    found = compared(first, second)

    assert list(found.sources["web"].shifts) == ["itc"]
    assert found.lost_examples[0].itm == (pytest.approx(0.9), None)


def test_examples_of_equal_difference_stand_in_the_order_of_the_first_run_and_unscored_ones_last(tmp_path):
    pairs = [(0.75, None), (0.75, 0.25), (0.75, 0.125), (0.75, 0.25)]
    first, second = (
        run_of(tmp_path, [record(n) for n in range(4)], [web(n, pair[turn]) for n, pair in enumerate(pairs)], turn)
        for turn in (0, 1)
    )

    assert [example.positions for example in compared(first, second).lost_examples] == [(2, 2), (1, 1), (3, 3), (0, 0)]


def test_texts_that_both_reject_count_as_agreement(tmp_path):
    first = run_of(tmp_path, [record(n) for n in range(4)], [web(n, itm) for n, itm in enumerate((0.9, 0.1, 0.2, 0.3))])
    second = run_of(tmp_path, [record(n) for n in range(4)], [web(n, 0.25) for n in range(4)], round_=1)

    found = compared(first, second).sources["web"]

    assert (found.kept_by_both, found.rejected_by_both, found.lost, found.agreement) == (0, 3, 1, 0.75)


def test_the_json_holds_every_figure(rounds):
    values = json.loads(json.dumps(compared(*rounds).to_json()))

    assert values["sources"]["synthetic"]["agreement"] == 0.5
    assert values["sources"]["web"]["shifts"]["itm"]["quantiles"]["p95"] == 0.5
    assert values["gained_examples"][0]["texts"] == ["a web text", "a web text"]
