"""Samples that end, stop or break their worker: set aside with their reason, and nothing else is lost or changed."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import ledgers
import pytest
from fakes import NAMES, build_dying, build_fakes, build_hanging, build_nan, build_nothing, job_config, write_shard
from ledgers import SHARD, commit, exported_run, new_run

from capfilt import storage
from capfilt.errors import FailedUnitsError, RunError
from capfilt.ledger import committed_units, read_candidates, read_samples, write_unit
from capfilt.ledger.commits import seal
from capfilt.ledger.quarantine import quarantine, quarantine_path, quarantined, release
from capfilt.records import Held, Shard, Unit
from capfilt.runs import Run, load_run
from capfilt.verify import verify
from pipelines import bootstrap

BAD = 9  # position of the white sample


def write_input(folder: Path, bad: str | bytes = "white") -> None:
    samples: list[tuple[str | bytes, str]] = [("red", "my red car"), ("blue", "click here"), ("green", "")] * 6
    samples[BAD] = (bad, "snow")
    write_shard(folder / "in/00000.tar", samples)
    write_shard(folder / "in/00001.tar", [("blue", "sea")] * 8)


def run_and_shard(folder: Path) -> tuple[Run, Shard]:
    run = load_run(f"{folder}/run")
    return run, run.plan()[0]


def rows(folder: Path) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return the ledger of the first shard: all samples but the bad one, and all candidates."""
    run, shard = run_and_shard(folder)
    samples = [row for row in read_samples(run, shard).to_pylist() if row["position"] != BAD]
    return samples, read_candidates(run, shard).to_pylist()


def bad_row(folder: Path) -> dict[str, object]:
    run, shard = run_and_shard(folder)
    return read_samples(run, shard).to_pylist()[BAD]


def record(folder: Path) -> Path:
    (path,) = (folder / "run/quarantine").rglob("*.*")
    return path


@pytest.fixture(scope="module")
def undecodable(tmp_path_factory) -> Path:
    """The same job where the bad sample is no image at all."""
    folder = tmp_path_factory.mktemp("undecodable")
    write_input(folder, b"no image")
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    return folder


def check(folder: Path, undecodable: Path, error: str) -> None:
    """All rows but one are as beside an undecodable sample; that one has its reason, and the run is whole."""
    assert rows(folder) == rows(undecodable)
    row = bad_row(folder)
    assert (row["status"], row["error"], row["key"]) == ("quarantined", error, f"{BAD:06d}")
    assert record(folder).name == f"{BAD:08d}.json"
    assert json.loads(record(folder).read_text())["image_sha256"] == row["image_sha256"] != ""
    assert verify(load_run(f"{folder}/run")) == []


@pytest.mark.usefixtures("ray_cluster")
def test_a_sample_that_kills_its_worker_is_quarantined_and_all_else_is_committed(tmp_path, undecodable):
    write_input(tmp_path)
    build = partial(build_dying, marker=str(tmp_path / "deaths"), times=1000)

    summary = bootstrap.run(job_config(tmp_path, unit_size=4), build, NAMES)

    assert "26 samples: 25 scored, 1 failed (1 quarantined)" in summary
    check(tmp_path, undecodable, "ends the process of its worker, alone in its batch")
    assert (tmp_path / "deaths").stat().st_size == 2 + 2  # the unit, which is one batch, and the sample
    assert "its worker died: " in json.loads(record(tmp_path).read_text())["detail"]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_sample_that_hangs_is_quarantined(tmp_path, undecodable):
    """The deadline is long enough for a busy machine: it must not pass for any other sample."""
    write_input(tmp_path)
    cluster = {"workers": 2, "cpus_per_worker": 0.5, "attempts": 2, "deadline_seconds": 8.0}

    bootstrap.run(job_config(tmp_path, unit_size=4, cluster=cluster), build_hanging, NAMES)

    check(tmp_path, undecodable, "does not come to an end, alone in its batch")


def test_a_sample_that_a_model_has_no_number_for_is_quarantined(tmp_path, undecodable):
    write_input(tmp_path)

    bootstrap.run(job_config(tmp_path), build_nan, NAMES, local=True)

    check(tmp_path, undecodable, "makes the models raise ModelError, alone in its batch")
    assert "gives itm nan" in json.loads(record(tmp_path).read_text())["detail"]


@pytest.mark.usefixtures("ray_cluster")
def test_workers_and_one_process_quarantine_to_the_same_bytes(tmp_path):
    for way in ("local", "ray"):
        write_input(tmp_path / way)
        bootstrap.run(job_config(tmp_path / way), build_nan, NAMES, local=way == "local")

    tables = {way: sorted((tmp_path / way / "run/ledger").rglob("*.parquet")) for way in ("local", "ray")}
    assert len(tables["local"]) == 4
    assert [path.read_bytes() for path in tables["ray"]] == [path.read_bytes() for path in tables["local"]]


def test_a_run_that_goes_on_believes_its_records(tmp_path, undecodable, monkeypatch):
    """Killed after the record and before the commit; the models of the second start would not fail at all."""
    write_input(tmp_path)

    def killed(run: Run, unit: Unit, *rest: Any) -> None:
        if unit.held:
            raise KeyboardInterrupt
        write_unit(run, unit, *rest)

    monkeypatch.setattr("capfilt.bootstrap.write_unit", killed)
    with pytest.raises(KeyboardInterrupt):
        bootstrap.run(job_config(tmp_path), build_nan, NAMES, local=True)
    assert record(tmp_path).exists()
    monkeypatch.undo()

    bootstrap.run(job_config(tmp_path, unit_size=64), build_fakes, NAMES, local=True)

    check(tmp_path, undecodable, "makes the models raise ModelError, alone in its batch")


def test_quarantined_samples_are_tried_again_when_asked_for(tmp_path):
    write_input(tmp_path)
    config = job_config(tmp_path, export=True)
    bootstrap.run(config, build_nan, NAMES, local=True)
    bootstrap.run(config, build_nothing, NAMES, local=True)  # not by itself

    summary = bootstrap.run(config, build_fakes, NAMES, local=True, retry_quarantined=True)

    assert summary.startswith("2 shards, 0 left out, 8 samples done before; 18 samples: 18 scored, 0 failed")
    assert not list((tmp_path / "run/quarantine").rglob("*.json"))
    assert verify(load_run(f"{tmp_path}/run")) == []


def test_a_release_that_is_cut_short_leaves_no_unit_that_counts_without_its_tables(tmp_path, monkeypatch):
    run = new_run(tmp_path)
    commit(run, SHARD, [0, 2, 4], [ledgers.record(position) for position in range(4)], [])

    def cut_short(folder: str) -> None:
        Path(folder, "00000000-00000002.samples.parquet").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "remove_folder", cut_short)
    with pytest.raises(KeyboardInterrupt):
        release(run, SHARD)

    assert committed_units(run, SHARD) == set()


def test_a_release_takes_the_ledger_before_what_was_exported_of_it(tmp_path, monkeypatch):
    """So an export that still finds the ledger when its marker is down leaves that marker to the release."""
    run, (shard, _) = exported_run(tmp_path)
    removed, remove = [], storage.remove

    def noted(path: str) -> None:
        removed.append(Path(path).name)
        remove(path)

    monkeypatch.setattr(storage, "remove", noted)
    release(run, shard)

    assert removed == [f"{shard.id}.json", f"{shard.id}_stats.json", "_SUCCESS"]


def test_max_quarantined_zero_fails_the_unit_whole(tmp_path):
    write_input(tmp_path)

    with pytest.raises(FailedUnitsError, match=r"1 failed(.|\n)*samples 8 to 16: tried once: ModelError: 000009"):
        bootstrap.run(job_config(tmp_path, max_quarantined=0), build_nan, NAMES, local=True)

    assert not (tmp_path / "run/quarantine").exists()


def test_what_is_on_record_stays_and_what_is_not_is_added(tmp_path):
    run, records = new_run(tmp_path), [ledgers.record(position) for position in range(4)]
    first, second, later = Held(1, "first", "a"), Held(2, "second", "b"), Held(1, "later", "c")

    quarantine(run, Unit(SHARD, 0, 4, (first,)), records)
    quarantine(run, Unit(SHARD, 0, 4, (later, second)), records)

    assert quarantined(run, SHARD) == (first, second)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (seal({"position": 2, "error": "", "detail": ""}), r"ValueError\('it is of position 2'\)"),
        (seal({"position": None, "error": "", "detail": ""}), "TypeError"),
        (b"{}", "KeyError"),
    ],
)
def test_what_is_no_record_of_its_sample_is_refused(tmp_path, content, why):
    run = new_run(tmp_path)
    path = Path(quarantine_path(run, SHARD, 1))
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    with pytest.raises(RunError, match=rf"00000001\.json: is not a quarantine record \({why}"):
        quarantined(run, SHARD)


@pytest.fixture
def folder(tmp_path) -> Path:
    write_input(tmp_path)
    bootstrap.run(job_config(tmp_path), build_nan, NAMES, local=True)
    return tmp_path


def problems(folder: Path) -> list[str]:
    return verify(load_run(f"{folder}/run"))


def test_verify_names_a_missing_record(folder):
    path = record(folder)
    path.unlink()

    (problem,) = problems(folder)

    assert problem.endswith(f"00000.samples.parquet: sample 9 is quarantined, and {path} is missing")


def test_verify_names_a_record_without_a_row(folder):
    path = record(folder)
    values = json.loads(path.read_text())
    del values["check"]
    path.with_name("00000003.json").write_bytes(seal(values | {"position": 3}))

    (problem,) = problems(folder)

    assert problem.startswith(f"{path.with_name('00000003.json')}: is of a sample that is not quarantined in ")


def test_verify_names_a_record_that_was_changed(folder):
    path = record(folder)
    path.write_text(path.read_text().replace("raise ModelError", "raise NameError"))

    (problem,) = problems(folder)

    assert problem.startswith(f"{path}: is not a quarantine record")


@pytest.mark.parametrize("place", ["x", "MODELS/x", "other/x", "MODELS/00009/x"])
def test_verify_names_strangers_among_the_records(folder, place):
    models = load_run(f"{folder}/run").models
    path = folder / "run/quarantine" / place.replace("MODELS", models)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")

    (problem,) = problems(folder)

    assert str(path if path.parent.name in ("quarantine", models) else path.parent) in problem
