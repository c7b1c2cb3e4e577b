"""Control pairs: which samples get them, from whom, and where they go."""

import pytest
from fakes import NAMES, build_fakes, job_config, mixed_shards, picture
from ledgers import record

from capfilt.batches import prepare
from capfilt.bootstrap import capfilt_batch
from capfilt.config import Policy
from capfilt.controls import CAPTION, OWN, add_controls
from capfilt.ledger import candidates_table, read_candidates
from capfilt.policy import cleaned, select
from capfilt.query import open_run
from capfilt.records import Candidate, Sample
from capfilt.runs import load_run
from capfilt.units import cut_units
from capfilt.verify import verify
from pipelines import bootstrap

ALL = {"controls": {"share": 1}}


def group(position: int, text: str, caption: str) -> list[Candidate]:
    own = [Candidate(position, f"key{position}", "web", 0, text)] if text else []
    return [
        *own,
        Candidate(position, f"key{position}", "synthetic", 0, caption, "c0ffee", seed=7, tokens=4, logprob=-1.0),
    ]


def controls(config, groups, records=None) -> list[list[Candidate]]:
    """Return the control texts of each sample of a batch."""
    records = records or [record(n) for n in range(len(groups))]
    texts = [rows[0].text if rows and rows[0].source == "web" else "" for rows in groups]
    found = add_controls(groups, records, texts, config)
    assert [rows[: len(own)] for rows, own in zip(found, groups, strict=True)] == list(groups)
    return [rows[len(own) :] for rows, own in zip(found, groups, strict=True)]


def test_a_drawn_sample_gets_a_text_and_a_caption_of_another(tmp_path):
    groups = [group(0, "red car", "a red car"), group(1, "blue sea", "a blue sea")]

    (own, caption), others = controls(job_config(tmp_path, **ALL), groups)

    assert own == Candidate(0, "key0", "control", 0, "blue sea")
    assert caption == Candidate(0, "key0", "control", 1, "a blue sea", "c0ffee", seed=7)
    assert [candidate.text for candidate in others] == ["red car", "a red car"]


def test_a_text_that_reads_like_one_of_the_image_is_no_mismatch(tmp_path):
    groups = [group(0, "Red  Car", "a red car"), group(1, "red car", "A RED CAR"), group(2, "", "sea")]

    first, second, third = controls(job_config(tmp_path, **ALL), groups)

    assert [candidate.text for candidate in first + second] == ["sea", "sea"]
    assert len(third) == 2


def test_a_text_of_an_equal_image_is_no_mismatch(tmp_path):
    records = [record(0), record(1, image_sha256=record(0).image_sha256)]
    groups = [group(0, "red car", "a red car"), group(1, "my car", "a car")]

    assert controls(job_config(tmp_path, **ALL), groups, records) == [[], []]


def test_a_sample_that_was_not_scored_gets_none_and_its_text_serves_others(tmp_path):
    records = [record(0), record(1, status="truncated")]

    found = add_controls(
        [group(0, "red car", "a red car"), []], records, ["red car", "blue sea"], job_config(tmp_path, **ALL)
    )

    assert [candidate.text for candidate in found[0][2:]] == ["blue sea"]
    assert found[1] == []


def test_a_batch_of_one_has_no_mismatch(tmp_path):
    assert controls(job_config(tmp_path, **ALL), [group(0, "red car", "a red car")]) == [[]]


def test_a_share_of_zero_is_off_and_a_small_one_draws_about_as_many(tmp_path):
    groups = [group(n, f"text {n}", f"caption {n}") for n in range(2000)]

    assert not any(controls(job_config(tmp_path), groups))
    drawn = sum(map(bool, controls(job_config(tmp_path, controls={"share": 0.1}), groups)))
    assert 160 < drawn < 240


def test_who_is_drawn_and_paired_follows_from_seed_round_image_and_place(tmp_path):
    groups = [group(n, f"text {n}", f"caption {n}") for n in range(50)]
    half = {"controls": {"share": 0.5}}

    first = controls(job_config(tmp_path, **half), groups)

    assert controls(job_config(tmp_path, **half, unit_size=64, decode_threads=1), groups) == first
    for change in ({"seed": 1}, {"round": 1}):
        assert controls(job_config(tmp_path, **half, **change), groups) != first
    moved = [record(n)._replace(position=n + 50) for n in range(50)]
    assert controls(job_config(tmp_path, **half), groups, moved) != first


def test_the_pairs_of_runs_that_there_are_stay(tmp_path):
    """Others under equal settings want another version of the results; each has a partner of its own, near or far."""
    groups = [group(n, f"text {n}", f"caption {n}") for n in range(9)]
    pairs = {0: "text 1", 2: "text 5", 5: "text 3", 6: "text 0", 8: "text 2"}

    found = controls(job_config(tmp_path, controls={"share": 0.5}), groups)

    assert {place: rows[0].text for place, rows in enumerate(found) if rows} == pairs


def test_control_texts_are_scored_against_the_image_that_they_do_not_fit(tmp_path):
    config = job_config(tmp_path, **ALL)
    both = build_fakes(config)
    samples = [Sample(0, "0", picture("red"), "my red car"), Sample(1, "1", picture("blue"), "my blue car")]

    rows = capfilt_batch([prepare(both.sides, config, sample) for sample in samples], both, config)

    assert [(row.position, row.source, row.caption_index, row.itm) for row in rows] == [
        (0, "web", 0, 1.0),
        (0, "synthetic", 0, 1.0),
        (0, "control", OWN, 0.0),
        (0, "control", CAPTION, 0.0),
        (1, "web", 0, 1.0),
        (1, "synthetic", 0, 1.0),
        (1, "control", OWN, 0.0),
        (1, "control", CAPTION, 0.0),
    ]


def test_no_policy_selects_a_control_text():
    rows = [Candidate(0, "k", "control", 0, "b", itm=1.0), Candidate(0, "k", "web", 0, "a", itm=0.9)]
    table = candidates_table("00000", rows)
    everything = Policy(web_itm=0, synthetic_itm=0)

    for texts in (None, cleaned(table["text"])):
        assert select(table, everything, texts)["text"].to_pylist() == ["a"]
    assert select(table.slice(0, 1), everything).num_rows == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("controls")
    mixed_shards(folder / "in", shards=2)
    for name, share in (("run", 0.5), ("off", 0.0)):
        config = job_config(folder, run=str(folder / name), controls={"share": share}, export=True)
        bootstrap.run(config, build_fakes, NAMES, local=True)
    return folder


def test_clean_shards_are_those_of_a_run_without_controls(folder):
    with_controls, without = (sorted((folder / name / "clean").rglob("*.tar")) for name in ("run", "off"))

    assert [path.read_bytes() for path in with_controls] == [path.read_bytes() for path in without]


def test_a_run_is_whole_and_opens_with_its_controls_apart(folder):
    assert verify(load_run(str(folder / "run"))) == []
    with open_run(str(folder / "run")) as run, open_run(str(folder / "off")) as off:
        assert run.controls.aggregate("count(*)").fetchall()[0][0] > 10
        assert off.controls.aggregate("count(*)").fetchall() == [(0,)]
        assert run.figures["candidates"] == off.figures["candidates"]
        places = "shard, position, source, caption_index, text, kept, reason"
        tables = [each.candidates.project(places).order(places).fetchall() for each in (run, off)]
        assert tables[0] == tables[1]


def test_a_run_is_the_same_however_its_shards_are_cut(folder):
    config = job_config(folder, run=str(folder / "cut"), unit_size=4, controls={"share": 0.5})
    bootstrap.run(config, build_fakes, NAMES, local=True)

    runs = [load_run(str(folder / name)) for name in ("run", "cut")]

    assert len(cut_units(runs[1].plan()[0], config)) > len(cut_units(runs[0].plan()[0], runs[0].config()))
    rows = [[read_candidates(run, shard).to_pylist() for shard in run.plan()] for run in runs]
    assert rows[0] == rows[1]
