"""Calibrations against scores whose distribution is known."""

import json

import pytest
from ledgers import CHECKPOINTS, complete, config, new_run, record, synthetic, web

from capfilt.calibrate import Label, calibrate, render_calibration
from capfilt.config import Policy
from capfilt.errors import QueryError
from capfilt.query import open_run
from capfilt.records import Candidate, Shard
from capfilt.runs import start_run


def control(position: int, itm: float, index: int = 0) -> Candidate:
    captioner = "c0ffee" if index else None
    return Candidate(position, f"key{position}", "control", index, "foreign", captioner=captioner, itm=itm)


def opened(folder, candidates: list[Candidate], samples: int = 100, policy: Policy | None = None):
    shard = Shard("00000", "in/00000.tar", 1000, "d16e57", samples)
    run = new_run(folder, [shard])
    ordered = sorted(candidates, key=lambda candidate: candidate.position)
    complete(run, shard, [record(n) for n in range(samples)], ordered)
    return open_run(run.root, policy)


@pytest.fixture
def run(tmp_path):
    """Web texts score 0.00 to 0.99, mismatches 0.00 to 0.49 or, of captions, a tenth of that."""
    texts = [text for n in range(100) for text in (web(n, n / 100, f"text {n}"), synthetic(n, 0.9))]
    controls = [text for n in range(100) for text in (control(n, n / 200), control(n, n / 2000, 1))]
    with opened(tmp_path, texts + controls) as run:
        yield run


def by_source(found):
    return {source.source: source for source in found.sources}


def test_the_proposal_is_the_least_threshold_that_lets_in_the_target_share(run):
    web_texts = by_source(calibrate(run, 0.05))["web"]

    assert web_texts.proposed.threshold == 0.4701  # the five mismatches at 0.475 and above are let in
    assert (web_texts.proposed.false_accepts.part, web_texts.proposed.false_accepts.whole) == (5, 100)
    assert (web_texts.proposed.kept.part, web_texts.proposed.kept.whole) == (52, 100)
    assert web_texts.least < web_texts.proposed.threshold < web_texts.most


def test_each_source_is_held_against_mismatches_of_its_own_kind(run):
    found = calibrate(run, 0.05)

    assert by_source(found)["synthetic"].proposed.threshold == 0.0471  # 0.047 itself would let in a sixth
    assert found.policy.model_dump(include={"name", "web_itm", "synthetic_itm", "human_itm"}) == {
        "name": "calibrated",
        "web_itm": 0.4701,
        "synthetic_itm": 0.0471,
        "human_itm": 0.0,
    }


def test_the_threshold_in_force_is_told_beside_the_proposed_one(run):
    web_texts = by_source(calibrate(run, 0.1))["web"]

    assert (web_texts.in_force.threshold, web_texts.in_force.false_accepts.part) == (0.5, 0)
    assert web_texts.in_force.kept.part == 50


def test_a_threshold_in_force_between_two_steps_is_told_as_the_policy_takes_it(tmp_path):
    policy = Policy(web_itm=0.50004, human_itm=0.50004)
    texts = [text for n in range(4) for text in (web(n, 0.50002 if n else 0.9), control(n, 0.50003))]
    texts += [Candidate(n, f"key{n}", "human", 0, f"text {n}", itm=0.50002 if n else 0.9) for n in range(4)]
    labels = [Label("key0", "a web text", True), Label("key1", "a web text", True), Label("key2", "a web text", False)]
    with opened(tmp_path, texts, 4, policy) as run:
        found = calibrate(run, 0.05, labels)
        kept = dict(run.sql("SELECT source, count(*) FILTER (kept) FROM candidates GROUP BY source").fetchall())

    web_texts, human = (by_source(found)[source].in_force for source in ("web", "human"))
    assert (web_texts.threshold, web_texts.kept.part, kept["web"]) == (0.50004, 1, 1)
    assert web_texts.false_accepts.part == 0
    assert (web_texts.precision.part, web_texts.precision.whole, web_texts.recall.part) == (1, 1, 1)
    assert (human.kept.part, human.false_rejects.part, kept["human"]) == (1, 3, 1)
    assert "0.50004  in force" in render_calibration(found)
    assert "run: 1 of 1 shards complete, thresholds of P(match)" in render_calibration(found)


def test_the_share_of_mismatches_is_estimated_from_the_low_scores(tmp_path):
    """Of 100 web texts 40 score as the mismatches do and 60 score 1: at most 40 % are wrong."""
    texts = [web(n, n / 100 if n < 40 else 1.0) for n in range(100)]
    with opened(tmp_path, texts + [control(n, n % 40 / 100) for n in range(80)]) as run:
        found = by_source(calibrate(run, 0.05))["web"]

    assert found.noise_at_most == pytest.approx(0.4, abs=0.02)
    assert found.in_force.wrong_at_most == 0.0
    assert found.points[4].wrong_at_most == pytest.approx(0.4 * 0.5 / 0.8, abs=0.02)  # at 0.2


def test_too_few_controls_are_warned_of(tmp_path):
    with opened(tmp_path, [web(n, n / 10) for n in range(10)] + [control(n, 0.1) for n in range(10)], 10) as run:
        found = calibrate(run, 0.05)

    assert found.warnings == [
        "web: 10 control pairs are too few to show a rate of 0.05, which takes 73; a run with a larger "
        "controls.share, or on more samples, has more"
    ]
    assert by_source(found)["web"].most is None
    assert "warning: web: 10 control pairs are too few" in render_calibration(found)


@pytest.mark.parametrize(("controls", "shown"), [(1, False), (72, False), (73, True)])
def test_a_share_of_mismatches_is_shown_only_where_the_controls_are_enough(tmp_path, controls, shown):
    texts = [web(n, n / 100) for n in range(100)] + [control(n, 0.1) for n in range(controls)]
    with opened(tmp_path, texts) as run:
        text = render_calibration(calibrate(run, 0.05))

    assert ("wrong of kept, at most" in text) == ("at most are mismatches" in text) == shown
    assert ("; 1 control pair\n" in text) == ("web: 1 control pair is too few" in text) == (controls == 1)


def test_a_source_without_controls_keeps_its_threshold_beside_one_that_has_them(tmp_path):
    texts = [text for n in range(100) for text in (web(n, n / 100), synthetic(n, 0.9), control(n, n / 200))]
    with opened(tmp_path, texts, policy=Policy(synthetic_itm=0.625)) as run:
        found = calibrate(run, 0.05)

    captions = by_source(found)["synthetic"]
    assert (captions.controls, captions.proposed, captions.least, captions.most) == (0, None, None, None)
    assert (captions.noise_at_most, captions.in_force.wrong_at_most) == (None, None)
    assert (found.policy.web_itm, found.policy.synthetic_itm) == (0.4701, 0.625)
    assert found.warnings == ["synthetic: no control pairs, so no threshold is proposed"]
    assert "synthetic: no threshold is proposed" in render_calibration(found)


def test_where_mismatches_score_one_no_threshold_is_proposed(tmp_path):
    with opened(tmp_path, [web(n, 0.5) for n in range(100)] + [control(n, 1.0) for n in range(100)]) as run:
        found = calibrate(run, 0.05)

    assert by_source(found)["web"].proposed is None
    assert found.policy.web_itm == Policy().web_itm
    assert "web: no threshold lets in so few: 100.00% of the control pairs score 1" in found.warnings


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (
            0.0,
            r"has no control pairs \(controls\.share is 0\) .*; bootstrap another run with controls\.share: 0\.02, or ",
        ),
        (0.02, r"its samples gave no control pairs yet .*; finish the run, or .* a larger controls\.share, or "),
    ],
)
def test_a_run_without_controls_says_what_to_do(tmp_path, share, message):
    shard = Shard("00000", "in/00000.tar", 1000, "d16e57", 1)
    run = start_run(config(tmp_path, controls={"share": share}), CHECKPOINTS)
    run.write_plan([shard])
    complete(run, shard, [record(0)], [web(0)])

    with open_run(run.root) as found, pytest.raises(QueryError, match=message):
        calibrate(found, 0.05)


def test_a_run_of_which_nothing_is_committed_says_so(tmp_path):
    run = new_run(tmp_path)

    with open_run(run.root) as nothing, pytest.raises(QueryError, match="no shard is complete, nor any unit of one"):
        calibrate(nothing, 0.05)


@pytest.mark.parametrize("error", [0, 1, -0.1])
def test_an_error_rate_that_is_none_is_refused(run, error):
    with pytest.raises(QueryError, match="give a rate between 0 and 1"):
        calibrate(run, error)


def test_texts_of_people_give_the_false_reject_rate(tmp_path):
    human = [Candidate(n, f"key{n}", "human", 0, f"text {n}", itm=n / 100) for n in range(100)]
    with opened(tmp_path, human + [control(n, n / 200) for n in range(100)]) as run:
        found = by_source(calibrate(run, 0.05))["human"]

    assert (found.proposed.false_rejects.part, found.proposed.false_rejects.whole) == (48, 100)
    assert found.points[10].false_rejects.share == 0.5


class TestLabels:
    def test_precision_and_recall_are_counted_at_each_threshold(self, run):
        labels = [Label(f"key{n}", f" text  {n} ", n >= 40) for n in range(30, 60)]

        point = by_source(calibrate(run, 0.05, labels))["web"].in_force

        assert (point.precision.part, point.precision.whole) == (10, 10)
        assert (point.recall.part, point.recall.whole) == (10, 20)

    def test_a_label_that_names_no_text_is_counted(self, run):
        found = calibrate(run, 0.05, [Label("key1", "text 2", True), Label("key1", "text 1", True)])

        assert "1 label of no scored text, such as key1" in found.warnings

    def test_a_label_that_fits_several_samples_is_left_out(self, tmp_path):
        with opened(tmp_path, [web(0, 0.9, "x"), web(1, 0.1, "x")._replace(key="key0"), web(2, 0.9, "y")], 3) as run:
            found = calibrate(run, 0.05, [Label("key0", "x", True), Label("key2", "y", True)])

        assert "1 label with several samples that fit, such as key0" in found.warnings
        assert by_source(found)["web"].in_force.recall.whole == 1

    @pytest.mark.parametrize("verdicts", [(True, False), (False, True), (True, True, False, True)])
    def test_a_text_that_labels_say_both_of_is_left_out(self, run, verdicts):
        labels = [Label("key40", " text  40 ", verdict) for verdict in verdicts]

        found = calibrate(run, 0.05, [*labels, Label("key50", "text 50", True), Label("key50", "text  50", True)])

        assert "1 text with labels that contradict each other, such as key40" in found.warnings
        assert by_source(found)["web"].points[0].recall.whole == 1


def test_of_the_thresholds_that_nothing_reaches_the_first_is_shown(tmp_path):
    found = calibrate(opened(tmp_path, [web(0, 0.42), control(0, 0.31)]), 0.5)

    thresholds = [line.split()[0] for line in render_calibration(found).splitlines() if line.startswith("0.")]
    assert thresholds[-4:] == ["0.35", "0.4", "0.45", "0.5"]  # the last is in force


def test_all_figures_are_told_in_text_and_json(run):
    found = calibrate(run, 0.05, [Label("key50", "text 50", True)])

    shown = render_calibration(found)
    assert "proposed: web_itm: 0.4701 (the target rate is met from 0." in shown
    assert "false accepts: 5.00 % (5 of 100; 95 % interval 2.15 % to 11.18 %)" in shown
    assert "in force" in shown
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert any(row.startswith("0.4701 proposed 5.00 % # 52.00 % ######## ") for row in rows)
    values = json.loads(json.dumps(found.to_json()))
    assert values["sources"][0]["proposed"]["false_accepts"] == {
        "part": 5,
        "whole": 100,
        "share": 0.05,
        "low": pytest.approx(0.0215, abs=1e-4),
        "high": pytest.approx(0.1118, abs=1e-4),
    }
    assert values["policy"]["web_itm"] == 0.4701
