"""CapFilt on batches and units, with exact models and real tars."""

import hashlib
import io
import math
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import NAMES, ColourCaptioner, ColourFilter, build_nothing, job_config, picture, write_shard

from capfilt.batches import prepare
from capfilt.bootstrap import CapFilt, capfilt_batch, capfilt_unit, noise_seed
from capfilt.config import ImageLimits
from capfilt.errors import ModelError, ShardError
from capfilt.examine import examine
from capfilt.filters import Scores
from capfilt.ledger import fold, read_candidates, read_samples, tables
from capfilt.records import Caption, Held, Sample, Shard, Unit
from capfilt.runs import Run, start_run
from capfilt.shards import open_shard
from capfilt.units import cut_units


@pytest.fixture
def config(tmp_path):
    return job_config(tmp_path)


@pytest.fixture
def run(config) -> Run:
    return start_run(config, NAMES)


def models(captions: int = 1, filter_size: int = 8) -> CapFilt:
    return CapFilt(ColourCaptioner(captions), ColourFilter(filter_size))


def plan(path: str) -> Shard:
    reader = open_shard(path)
    return Shard(Path(path).stem, path, reader.size, reader.digest, reader.samples)


def bootstrap(path, config, run, both=None):
    """Run all units of a shard and return the rows of both tables."""
    shard = plan(path)
    units = cut_units(shard, config)
    results = [capfilt_unit(unit, both or models(), config, run) for unit in units]
    fold(run, shard, units)
    return results, read_samples(run, shard).to_pylist(), read_candidates(run, shard).to_pylist()


def batch_of(config, both, *images: bytes, text: str = ""):
    samples = [Sample(n, f"{n:06d}", image, text) for n, image in enumerate(images)]
    return capfilt_batch([prepare(both.sides, config, sample) for sample in samples], both, config)


def test_web_text_and_caption_are_scored_alike(tmp_path, config, run):
    path = write_shard(tmp_path / "in/00000.tar", [("red", "my red car"), ("blue", "click here")])

    (result,), samples, candidates = bootstrap(path, config, run)

    assert [(c["key"], c["source"], c["caption_index"], c["text"], c["itm"]) for c in candidates] == [
        ("000000", "web", 0, "my red car", 1.0),
        ("000000", "synthetic", 0, candidates[1]["text"], 1.0),
        ("000001", "web", 0, "click here", 0.0),
        ("000001", "synthetic", 0, candidates[3]["text"], 1.0),
    ]
    assert candidates[1]["text"].startswith("a red ")
    assert candidates[3]["text"].startswith("a blue ")
    assert [sample["status"] for sample in samples] == ["ok", "ok"]
    assert (result.statuses, result.candidates, result.kept) == (
        {"ok": 2},
        {"web": 2, "synthetic": 2},
        {"web": 1, "synthetic": 2},
    )


def test_a_candidate_names_its_captioner_and_a_sample_its_image(tmp_path, config, run):
    path = write_shard(tmp_path / "in/00000.tar", [("red", "my red car")])

    _, (sample,), (web, synthetic) = bootstrap(path, config, run)

    digest = hashlib.sha256(picture("red")).hexdigest()
    assert (sample["image_sha256"], sample["width"], sample["height"], sample["format"]) == (digest, 12, 10, "JPEG")
    assert (web["captioner"], web["seed"], web["tokens"]) == (None, None, None)
    assert (synthetic["captioner"], synthetic["seed"]) == (NAMES["captioner"], noise_seed(config, digest))
    assert (synthetic["tokens"], synthetic["round"]) == (4, 0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_nothing_is_lost_silently(tmp_path, run, batch_size):
    """Every sample has a row with its reason, whatever is wrong with it and however it is batched."""
    content = [("red", "a red square"), (b"no image", "text"), ("blue", ""), (picture("red")[:200], ""), ("green", "x")]
    path = write_shard(tmp_path / "in/00000.tar", content)

    _, samples, candidates = bootstrap(path, job_config(tmp_path, batch_size=batch_size), run)

    assert [(s["position"], s["key"]) for s in samples] == [(n, f"{n:06d}") for n in range(5)]
    assert [s["status"] for s in samples] == ["ok", "not_an_image", "ok", "truncated", "ok"]
    assert all(bool(s["error"]) == (s["status"] != "ok") for s in samples)
    assert {c["position"] for c in candidates} == {0, 2, 4}


def test_a_sample_that_cannot_be_used_keeps_its_place_in_the_batch(config):
    """The fakes tell the place and the batch size; both must be those of the whole batch."""
    with_bad = batch_of(config, models(), picture("red"), b"no image", picture("blue"))
    all_good = batch_of(config, models(), picture("red"), picture("green"), picture("blue"))

    assert with_bad == [c for c in all_good if c.position != 1]


def test_a_batch_without_any_image_needs_no_model(config):
    both = models()

    assert batch_of(config, both, b"", b"no image") == []
    assert both.filter.texts == []


def test_the_filter_reads_cleaned_text_and_the_ledger_keeps_it_as_it_came(config):
    both = models()
    raw = "  a <b>red</b>\tcar &amp; more "

    web, _ = batch_of(config, both, picture("red"), text=raw)

    assert web.text == raw
    assert both.filter.texts[0][0][0] == "a red car & more"


def test_equal_texts_of_an_image_are_scored_once_and_each_keeps_its_row(config):
    class Repeats(ColourCaptioner):
        def write(self, pixels, noise):
            return [[Caption("a red car", 3, -1.0), Caption("a red  car", 3, -2.0)] for _ in pixels]

    both = CapFilt(Repeats(), ColourFilter())

    rows = batch_of(config, both, picture("red"), text="a red car")

    assert both.filter.texts == [[["a red car"]]]
    assert [(c.source, c.caption_index, c.itm) for c in rows] == [
        ("web", 0, 1.0),
        ("synthetic", 0, 1.0),
        ("synthetic", 1, 1.0),
    ]


@pytest.mark.parametrize("text", ["", "  ", "<br>", "\u200b"])
def test_a_text_with_nothing_to_read_is_no_candidate(config, text):
    both = models()
    ready = prepare(both.sides, config, Sample(0, "0", picture("red"), text, text_status="ok" if text else "missing"))

    assert [c.source for c in capfilt_batch([ready], both, config)] == ["synthetic"]
    assert ready.record.text_status == ("empty" if text else "missing")


def test_texts_of_people_are_recorded_as_such(tmp_path):
    human = job_config(tmp_path, source="human")

    assert [c.source for c in batch_of(human, models(), picture("red"), text="a red wall")] == ["human", "synthetic"]


@pytest.mark.parametrize("scores", [Scores(math.nan, 0.5), Scores(math.inf, None), Scores(0.5, math.nan)])
def test_a_score_that_is_no_number_is_an_error_that_names_the_sample(config, scores):
    class Broken(ColourFilter):
        def judge(self, pixels, texts):
            return [[scores for _ in group] for group in texts]

    with pytest.raises(ModelError, match=r"000000 at position 0: filter f117e4 gives itm .* to 'a red"):
        batch_of(config, CapFilt(ColourCaptioner(), Broken()), picture("red"))


def test_a_caption_that_no_distribution_gave_is_an_error_that_names_the_sample(config):
    class Broken(ColourCaptioner):
        def caption(self, *arguments):
            return [[replace(c, logprob=math.nan) for c in group] for group in super().caption(*arguments)]

    with pytest.raises(ModelError, match=r"000000 at position 0: captioner \w+ gives '.*' the log-probability nan; c"):
        batch_of(config, CapFilt(Broken(), ColourFilter()), picture("red"))


def test_noise_follows_from_seed_round_and_image_alone(tmp_path, config):
    other_seed, other_round = job_config(tmp_path, seed=1), job_config(tmp_path, round=1)
    seeds = [noise_seed(c, "ab") for c in (config, other_seed, other_round)] + [noise_seed(config, "cd")]

    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds[0] == noise_seed(job_config(tmp_path, batch_size=9, unit_size=1), "ab")


def test_the_noise_of_runs_that_there_are_stays(config):
    """Another under equal settings is another caption, and wants another version of the results."""
    assert noise_seed(config, "ab" * 32) == 8045415029097939590


def test_a_committed_unit_is_left_as_it_is(tmp_path, config, run):
    path = write_shard(tmp_path / "in/00000.tar", [("red", "my red car"), (b"no image", "")])
    unit = Unit(plan(path), 0, 2)

    first = capfilt_unit(unit, models(), config, run)
    Path(path).unlink()  # so that nothing can be read again
    second = capfilt_unit(unit, CapFilt(build_nothing, build_nothing), config, run)

    assert set(second.seconds) == {"read", "caption", "score"}  # what the commit record holds
    assert (second.statuses, second.candidates, second.kept, second.tokens) == (
        first.statuses,
        first.candidates,
        first.kept,
        first.tokens,
    )


def test_a_unit_whose_shard_is_folded_while_it_is_read_is_done_again_and_changes_nothing(
    tmp_path, config, run, monkeypatch
):
    unit = Unit(plan(write_shard(tmp_path / "in/00000.tar", [("red", "my red car")])), 0, 1)
    first = capfilt_unit(unit, models(), config, run)

    def read_late(path: str) -> object:
        monkeypatch.undo()
        fold(run, unit.shard, [unit])
        return tables.read_commit(path)

    monkeypatch.setattr(tables, "read_commit", read_late)
    second = capfilt_unit(unit, models(), config, run)

    assert replace(second, seconds={}) == replace(first, seconds={})
    assert not Path(run.parts(unit.shard)).exists()


def longer_text(path: Path) -> None:
    write_shard(path, [("red", "another text")])


def written_at_another_time(path: Path) -> None:
    """Change nothing but the time and the text, which is as long as before."""
    with tarfile.open(path, "w") as tar:
        for name, data in (("000000.jpg", picture("red")), ("000000.txt", b"cat")):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1_700_000_000
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("change", [longer_text, written_at_another_time])
def test_a_shard_that_changed_since_it_was_planned_is_refused(tmp_path, config, run, change):
    path = write_shard(tmp_path / "in/00000.tar", [("red", "dog")])
    unit = Unit(plan(path), 0, 1)
    change(Path(path))

    with pytest.raises(ShardError, match=r"00000\.tar: has changed since it was planned"):
        capfilt_unit(unit, models(), config, run)


def test_a_trial_commits_nothing_and_is_not_held_to_the_share_of_failures(tmp_path, config, run):
    path = write_shard(tmp_path / "in/00000.tar", [("red", "a red car")] * 3)
    trial = Unit(plan(path), 0, 3, tuple(Held(n, "for a trial") for n in (0, 2)), trial=True)

    result = capfilt_unit(trial, models(), config, run)

    assert result.statuses == {"ok": 1, "quarantined": 2}
    assert not Path(run.parts(trial.shard)).exists()
    assert not Path(run.quarantine).exists()


def test_a_shard_with_too_many_failures_fails_and_says_why(tmp_path, run):
    path = write_shard(tmp_path / "in/00000.tar", [("red", ""), (b"no image", ""), (picture("red")[:200], "")])
    unit = Unit(plan(path), 0, 3)

    with pytest.raises(ShardError, match=r"2 of 3 samples failed \(1 not_an_image, 1 truncated\), .* = 0\.5") as error:
        capfilt_unit(unit, models(), job_config(tmp_path), run)
    assert not list(Path(run.parts(unit.shard)).glob("*"))
    _, second, third = open_shard(path).read(0, 3)
    assert f"= 0.5; {second.key}: {examine(second, ImageLimits())[0].error}; {third.key}: " in str(error.value)

    capfilt_unit(unit, models(), job_config(tmp_path, max_failed_share=0.7), run)


def test_seconds_are_told_by_stage(tmp_path, config, run):
    (result,), *_ = bootstrap(write_shard(tmp_path / "in/00000.tar", [("red", "")]), config, run)

    assert set(result.seconds) == {"read", "caption", "score", "write"}
