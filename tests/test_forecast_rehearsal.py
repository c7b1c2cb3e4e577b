"""The rehearsal of a forecast: it goes the way of a run, on the job's own samples, and leaves nothing behind."""

import tempfile
from pathlib import Path

import pytest
import torch
from fakes import NAMES, build_fakes, job_config, mixed_shards

from capfilt.bootstrap import CapFilt
from capfilt.config import BootstrapConfig
from capfilt.errors import CheckpointError
from capfilt.forecast.rehearsal import rehearse
from capfilt.planning import shards_at
from capfilt.query import open_run
from capfilt.records import Unit
from capfilt.shards import find_shards
from pipelines import bootstrap


@pytest.fixture
def config(tmp_path) -> BootstrapConfig:
    mixed_shards(tmp_path / "in")
    return job_config(tmp_path)


def units(config: BootstrapConfig) -> list[Unit]:
    return [Unit(shard, 0, shard.samples) for shard in shards_at(find_shards(config.input))]


def test_all_samples_come_to_what_the_run_itself_comes_to(config):
    """Each of 63 samples is drawn once: four warm up, and the figures are those of the others."""
    rehearsal = rehearse(build_fakes, config.model_copy(update={"batch_size": 1}), units(config), 31, 2)

    assert (rehearsal.samples, rehearsal.attempted) == (31, 63)
    assert rehearsal.tally.statuses.total() == 62
    bootstrap.run(config, build_fakes, NAMES, local=True)
    with open_run(config.run) as run:
        kept = dict(run.candidates.filter("kept").aggregate("source, count(*)").fetchall())
    for source, count in kept.items():
        assert count - 1 <= rehearsal.tally.kept[source] <= count  # one sample warmed up


def test_repeats_are_timed_apart_and_in_whole_batches(config):
    rehearsal = rehearse(build_fakes, config, units(config), 5, 3)
    assert rehearsal.samples == 8
    assert [len(each) for each in (rehearsal.model, rehearsal.decode, rehearsal.whole, rehearsal.ledger)] == [
        3,
        3,
        3,
        3,
    ]
    assert (
        min(*rehearsal.model, *rehearsal.decode, *rehearsal.read, *rehearsal.whole, rehearsal.export, *rehearsal.ledger)
        > 0
    )
    assert all(whole > model for whole, model in zip(rehearsal.whole, rehearsal.model, strict=True))


def test_a_rehearsal_that_fails_keeps_nothing(config, tmp_path):
    def build(_: BootstrapConfig) -> CapFilt:
        raise CheckpointError("captioner: not found")

    with pytest.raises(CheckpointError):
        rehearse(build, config, units(config), 5, 1, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_units_of_few_samples_are_batches_of_few(config):
    few = [Unit(unit.shard, 0, 3) for unit in units(config)]
    assert rehearse(build_fakes, config.model_copy(update={"batch_size": 32}), few, 4, 2).samples == 6


def test_a_batch_size_that_is_not_set_is_found_as_by_the_run(config, monkeypatch):
    monkeypatch.setattr("capfilt.forecast.rehearsal.find_batch_size", lambda models: 7)
    rehearsal = rehearse(build_fakes, config.model_copy(update={"batch_size": 0}), units(config), 8, 2)
    assert (rehearsal.batch_size, rehearsal.samples) == (7, 14)


def test_models_that_met_the_larger_batches_of_a_trial_do_not_rehearse(config, monkeypatch):
    """On a GPU they would take smaller ones kernel by kernel."""
    built, used = [], []

    def build(config: BootstrapConfig) -> CapFilt:
        models = build_fakes(config)
        write = models.captioner.write
        monkeypatch.setattr(models.captioner, "write", lambda *batch: used.append(models.captioner) or write(*batch))
        built.append(models.captioner)
        return models

    monkeypatch.setattr("capfilt.forecast.rehearsal.find_batch_size", lambda models: 7)
    rehearse(build, config.model_copy(update={"batch_size": 0}), units(config), 8, 2)
    assert len(built) == 2
    assert set(used) == {built[1]}


@pytest.mark.parametrize(("kind", "batches"), [("cpu", 1), ("cuda", 2)])
def test_a_gpu_has_met_its_batches_twice_before_time_is_taken(config, kind, batches):
    """Which is when it records them: that takes longer than many a batch."""
    device = config.device.model_copy(update={"kind": kind})
    changes = {"batch_size": 4, "device": device}
    rehearsal = rehearse(build_fakes, config.model_copy(update=changes), units(config), 8, 3)
    assert (rehearsal.samples, rehearsal.attempted) == (8, 4 * batches + 3 * 8)


def test_nothing_is_left_behind_and_nothing_of_the_run_is_made(config, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    before = torch.get_num_threads()
    rehearse(build_fakes, config.model_copy(update={"device": config.device}), units(config), 4, 2)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not Path(config.run).exists()
    assert torch.get_num_threads() == before


def test_a_model_that_cannot_be_loaded_is_told(config):
    def refuse(_: BootstrapConfig) -> object:
        raise CheckpointError("no checkpoint at c")

    with pytest.raises(CheckpointError, match="no checkpoint at c"):
        rehearse(refuse, config, units(config), 4, 2)
