"""Planning a run: what becomes of shards that cannot be looked at, and of a stop."""

import re
from functools import partial
from pathlib import Path

import pytest
from fakes import NAMES, build_nothing, job_config, write_shard

from capfilt import planning, progress
from capfilt.config import Cluster
from capfilt.errors import PlanningError, StoppedError
from capfilt.planning import index_here, plan_shards
from capfilt.runs import Run, start_run
from capfilt.runs.journal import read_journal
from capfilt.runs.stop import Stop
from capfilt.shards import find_shards
from pipelines import bootstrap, indexing
from pipelines.indexing import index_shards
from workers import attempts

CLUSTER = Cluster(workers=2, cpus_per_worker=0.5)
SHARDS = 90


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr(indexing, "FEW_SHARDS", 1)
    monkeypatch.setattr(attempts, "BACKOFF", 0.01)
    for n in range(SHARDS):
        write_shard(tmp_path / f"in/{n:02d}/0.tar", [("red", "a car")])
    return start_run(job_config(tmp_path, input=[f"{tmp_path}/in/*/0.tar"]), NAMES)


def break_shard(run: Run, number: int) -> str:
    """Let the system itself refuse to read a shard, with an error that is not known to last."""
    path = Path(find_shards(run.config().input)[number])
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(OSError, match="Too many levels"):
        path.read_bytes()
    return str(path)


def plan(run: Run, cluster: Cluster | None, stop: Stop | None = None) -> list[str]:
    index = partial(index_shards, cluster, stop or Stop())
    return [shard.id for shard in plan_shards(run, find_shards(run.config().input), index)]


@pytest.mark.usefixtures("ray_cluster")
class TestOnWorkers:
    def test_a_shard_whose_store_is_out_is_named_and_the_job_may_be_run_again(self, run, tmp_path, caplog):
        path = break_shard(run, 7)

        with pytest.raises(PlanningError) as told:
            bootstrap.run(job_config(tmp_path, input=[f"{tmp_path}/in/*/0.tar"]), build_nothing, NAMES)

        lead = "1 shard could not be looked at, so that nothing is planned and no unit was begun; to go on"
        assert str(told.value).startswith(f"{lead}, run the same again:\n  {path}: OSError: ")
        assert told.value.exit_code == 75
        assert f"{path}: outage 1 of 6" in caplog.text
        assert "samples 0 to 0" not in caplog.text
        assert not run.has_plan()
        Path(path).unlink()
        write_shard(Path(path), [("red", "a car")])
        assert len(plan(run, CLUSTER)) == SHARDS

    def test_so_is_a_store_that_is_out_for_all(self, run):
        for number in range(SHARDS):
            break_shard(run, number)

        with pytest.raises(PlanningError, match=r"10 shards could(.|\n)*stopped: 10 units failed in a row") as told:
            plan(run, CLUSTER)
        assert told.value.exit_code == 75

    def test_what_will_not_pass_is_to_be_mended(self, run):
        Path(run.indexes).parent.mkdir(parents=True)
        Path(run.indexes).write_text("no folder")

        with pytest.raises(PlanningError, match=r"0\.tar: ShardError: .*(exists|Not a directory)") as told:
            plan(run, CLUSTER)
        assert told.value.exit_code == 1


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("cluster", [None, CLUSTER])
class TestAnywhere:
    def test_a_stop_finishes_the_shards_in_hand_and_the_same_again_goes_on(self, run, cluster, monkeypatch):
        stop = Stop()
        monkeypatch.setattr(progress, "INTERVAL", 0.0)
        monkeypatch.setattr(progress, "say", lambda text: stop.ask())
        monkeypatch.setattr(planning, "READERS", 1)

        with pytest.raises(StoppedError, match=rf"\d+ of {SHARDS} shards are indexed, and no unit was begun"):
            plan(run, cluster, stop)

        kept = len(list(Path(run.indexes).iterdir()))
        assert 0 < kept < SHARDS
        assert not run.has_plan()
        (line,) = read_journal(run.root)
        told = rf"  stop  summary: \d+ of {SHARDS} shards are indexed, and no unit was begun"
        assert re.search(told, line)
        looked: list[str] = []
        plan_shards(run, find_shards(run.config().input), lambda run, new: looked.extend(new) or index_here(run, new))
        assert len(looked) == SHARDS - kept

    def test_it_is_told_how_far_it_is(self, run, cluster, monkeypatch, capsys):
        monkeypatch.setattr(progress, "INTERVAL", 0.0)

        assert len(plan(run, cluster)) == SHARDS

        lines = capsys.readouterr().err.splitlines()
        assert f"{SHARDS} of {SHARDS} shards, " in lines[-1]
        assert lines[-1].endswith(" shards/s, 0:00:00 left, indexed")
