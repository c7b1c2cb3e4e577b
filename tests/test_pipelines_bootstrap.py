"""The bootstrap job: its ledger and its summary, the same bytes however it runs, and nothing done twice."""

import re

import pytest
from drivers import tables
from fakes import NAMES, build_fakes, build_nothing, job_config, write_shard

from capfilt.batch_size import MIN_BATCH
from capfilt.bootstrap import CapFilt
from capfilt.config import BootstrapConfig
from capfilt.errors import CheckpointError, FailedUnitsError, RunError, WorkerError
from capfilt.ledger import read_candidates, read_samples
from capfilt.planning import plan_shards
from capfilt.runs import load_run, start_run
from capfilt.shards import find_shards
from capfilt.verify import verify
from pipelines import bootstrap, indexing
from pipelines.bootstrap_dry_run import dry_run


def test_one_checkpoint_for_both_roles_is_warned_of_once(folder, caplog):
    for names, times in ((NAMES, 0), (dict.fromkeys(NAMES, "c0ffee"), 1)):
        caplog.clear()
        bootstrap.run(job_config(folder, run=f"{folder}/run{times}"), build_fakes, names, local=True)

        told = [record for record in caplog.records if "are the same checkpoint" in record.getMessage()]
        assert [record.levelname for record in told] == ["WARNING"] * times


def test_every_sample_of_every_shard_is_in_the_ledger(undisturbed):
    run = load_run(f"{undisturbed}/run")

    for shard in run.plan():
        samples, candidates = read_samples(run, shard), read_candidates(run, shard)
        assert samples["position"].to_pylist() == list(range(21))
        assert samples["status"].to_pylist() == ["not_an_image" if n % 5 == 0 else "ok" for n in range(21)]
        assert set(candidates["position"].to_pylist()) == {n for n in range(21) if n % 5}
    assert sorted(tables(undisturbed)) == sorted(
        f"{run.models}/{n:05d}.{kind}" for n in range(3) for kind in ("candidates.parquet", "json", "samples.parquet")
    )


def test_the_summary_adds_up(folder):
    summary = bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)

    first, texts, seconds = summary.splitlines()
    assert first == ("3 shards, 0 left out, 0 samples done before; 63 samples: 48 scored, 15 failed (15 not_an_image)")
    assert texts == ("78 candidates: synthetic 48 of 48 kept (100.0%), web 15 of 30 kept (50.0%); 192 tokens generated")
    assert re.fullmatch(
        r"\d:\d\d:\d\d, [\d.]+ images/s; of the workers' time: caption \d+%, score \d+%, models idle \d+%; "
        r"beside that read \d+%, write \d+%",
        seconds,
    )


@pytest.mark.parametrize(
    "breaking", ["ledger/*/00000.candidates.parquet", "ledger/*/00001.json", "plan/shards.parquet"]
)
def test_a_run_of_which_a_file_is_broken_comes_out_whole_again(folder, undisturbed, breaking, caplog):
    config = job_config(folder, export=True)
    bootstrap.run(config, build_fakes, NAMES, local=True)
    (path,) = (folder / "run").glob(breaking)
    path.unlink()  # what verify's messages tell to do

    told = str(dry_run(config, lambda _: [], lambda _: NAMES, local=True))
    summary = bootstrap.run(config, build_fakes, NAMES, local=True)

    missed = path.name == "00000.candidates.parquet"  # without its record a shard just has not been done
    assert f"{63 if path.name == 'shards.parquet' else 42} samples done before" in summary
    assert (f"done anew  the shard of {path}: is missing" in told) == missed
    assert ("the shard is done anew" in caplog.text) == missed
    assert tables(folder) == tables(undisturbed)
    assert verify(load_run(config.run)) == []


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_bytes_as_one_process(folder, undisturbed, workers):
    cluster = {"workers": workers, "cpus_per_worker": 0.5}
    bootstrap.run(job_config(folder, cluster=cluster), build_fakes, NAMES)

    assert tables(folder) == tables(undisturbed)


def test_the_size_of_a_unit_changes_no_table(folder, undisturbed):
    bootstrap.run(job_config(folder, unit_size=16), build_fakes, NAMES, local=True)

    assert tables(folder) == tables(undisturbed)


def test_a_second_run_does_nothing(folder):
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    before = tables(folder)

    summary = bootstrap.run(job_config(folder), build_nothing, NAMES, local=True)

    assert summary.startswith("3 shards, 0 left out, 63 samples done before; 0 samples")
    assert tables(folder) == before


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("local", [True, False])
def test_a_batch_size_that_is_not_set_is_found_when_a_run_begins_and_kept(tmp_path, local):
    write_shard(tmp_path / "in/00000.tar", [("red", "my red car")] * 9)
    config = job_config(tmp_path, batch_size=0)

    bootstrap.run(config, build_fakes, NAMES, local=local)
    found = load_run(f"{tmp_path}/run").config().batch_size
    again = bootstrap.run(config, build_nothing, NAMES, local=True)

    assert found >= MIN_BATCH
    assert again.startswith("1 shard, 0 left out, 9 samples done before; 0 samples")
    with pytest.raises(RunError, match=f"batch_size: {found} in the run, 4 here"):
        bootstrap.run(job_config(tmp_path), build_nothing, NAMES, local=True)


@pytest.mark.usefixtures("ray_cluster")
def test_a_trial_that_fails_says_why(tmp_path):
    write_shard(tmp_path / "in/00000.tar", [("red", "my red car")])
    with pytest.raises(WorkerError, match="no worker can be tried: AssertionError: the models were loaded"):
        bootstrap.run(job_config(tmp_path, batch_size=0), build_nothing, NAMES)


@pytest.mark.usefixtures("ray_cluster")
def test_shards_that_workers_index_are_planned_as_by_the_driver(folder, undisturbed, monkeypatch):
    (folder / "in/00003.tar").write_bytes(b"no shard")
    (folder / "in/00003.tar").rename(folder / "in/00003.tgz")
    config = job_config(folder)
    expected = plan_shards(start_run(job_config(folder, run=str(folder / "here")), NAMES), find_shards(config.input))
    monkeypatch.setattr(indexing, "FEW_SHARDS", 1)

    with pytest.raises(FailedUnitsError, match=r"1 failed(.|\n)*00003\.tgz"):
        bootstrap.run(config, build_fakes, NAMES)

    assert load_run(config.run).plan() == expected
    assert tables(folder) == tables(undisturbed)
    assert len(list((folder / "run/plan/index").iterdir())) == 3


@pytest.mark.usefixtures("ray_cluster")
def test_models_that_cannot_be_loaded_stop_the_job(folder):
    with pytest.raises(WorkerError, match="no worker can be built: AssertionError: the models were loaded"):
        bootstrap.run(job_config(folder), build_nothing, NAMES)


def build_by_kind(config: BootstrapConfig) -> CapFilt:
    if config.filter.endswith("captioner"):
        raise CheckpointError(
            f"{config.filter}: has no encoder and no ITM head; it can serve as captioner, not as filter"
        )
    return build_fakes(config)


@pytest.mark.parametrize("local", [True, False])
def test_what_no_worker_can_begin_with_is_mended_in_the_same_folder(folder, local, request):
    if not local:
        request.getfixturevalue("ray_cluster")
    wrong, names = job_config(folder, filter="captioner"), NAMES | {"filter": "0ther"}
    with pytest.raises((CheckpointError, WorkerError), match="can serve as captioner, not as filter"):
        bootstrap.run(wrong, build_by_kind, names, local=local)

    assert "63 samples: 48 scored" in bootstrap.run(job_config(folder), build_by_kind, NAMES, local=local)
    with pytest.raises(RunError, match=r"checkpoint of the filter: .* in the run, '0ther' here"):
        bootstrap.run(wrong, build_by_kind, names, local=True)
    assert verify(load_run(f"{folder}/run")) == []
