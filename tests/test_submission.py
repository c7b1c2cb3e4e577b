"""What is shipped to a cluster: resolved settings, the code, and an id that follows from the run folder."""

from pathlib import Path

import pytest

from capfilt.config import BootstrapConfig, ExportConfig, load
from capfilt.config.rounds import RoundsConfig
from capfilt.errors import ConfigError
from capfilt.rounds import rounds
from workers.submission import attempt_of, entrypoint, folder_id, prepare, staged

BOOTSTRAP = BootstrapConfig(input=["a.tar"], run="/runs/cc 12m", captioner="c", filter="f")


def test_the_id_follows_from_the_folder_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ids = {
        folder_id(folder)
        for folder in ("runs/a", f"{tmp_path}/runs/a", f"{tmp_path}/runs/a/", f"file://{tmp_path}/runs/a")
    }

    assert len(ids) == 1
    assert folder_id("runs/b/a") not in ids
    assert folder_id("s3://bucket/x/cc 12m!").startswith("cc-12m-")


def test_the_attempts_at_a_folder_are_told_from_other_jobs():
    stem = prepare("bootstrap", BOOTSTRAP).stem

    assert stem == f"capfilt-bootstrap-{folder_id('/runs/cc 12m')}"
    assert attempt_of(f"{stem}-12", "/runs/cc 12m") == 12
    assert attempt_of(f"capfilt-export-{folder_id('/runs/cc 12m')}-3", "/runs/cc 12m") == 3
    assert [attempt_of(name, "/runs/cc 12m") for name in (stem, f"{stem}-x", "raysubmit_7", f"{stem}-1-2")] == [
        None
    ] * 4


def test_a_job_runs_on_the_cluster_it_is_submitted_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bootstrap = prepare("bootstrap", BOOTSTRAP.model_copy(update={"run": "here"})).config
    export = prepare("export", ExportConfig(run="here", workers=4)).config

    assert isinstance(bootstrap, BootstrapConfig)
    assert bootstrap.cluster.address == "auto"
    assert bootstrap.run == f"{tmp_path}/here"
    assert export == ExportConfig(run=f"{tmp_path}/here", workers=4, address="auto")


def test_an_address_for_drivers_outside_of_the_cluster_is_refused():
    cluster = BOOTSTRAP.cluster.model_copy(update={"address": "ray://head:10001"})
    with pytest.raises(ConfigError, match=r"cluster\.address: ray://head:10001 is for drivers outside of the cluster"):
        prepare("bootstrap", BOOTSTRAP.model_copy(update={"cluster": cluster}))


def loop(folder: Path, **changes: str) -> RoundsConfig:
    """Return a loop with files of relative paths in a folder, of which texts take the place."""
    data, schedule = "data: {shards: [human]}\n", "schedule: {epochs: 1, learning_rate: 1.0e-4}\n"
    files = {role: f"role: {role}\n{data}{schedule}" for role in ("captioner", "filter")}
    files["filter"] += "vision_from: '{captioner}'\ndevice: {recompute_vision: 0}\n"
    files["bootstrap"] = "input: [web]\ncluster: {address: 'head:6379', workers: 3}\n"
    files["pretrain"] = "data: {shards: [human, '{clean}']}\nmodel: {vocabulary: vocab.txt}\n" + schedule
    for name, text in (files | changes).items():
        (folder / f"{name}.yaml").write_text(text)
    return RoundsConfig(output="loop", start="med", **{name: f"{name}.yaml" for name in files})


def test_a_loop_needs_none_of_its_files_on_the_cluster(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = loop(tmp_path)
    before = rounds(given.model_copy(update={"output": f"{tmp_path}/loop"}))
    submission = prepare("rounds", given)
    for file in tmp_path.glob("*.yaml"):
        file.unlink()
    with staged(submission, code=False) as folder:
        assert [path.name for path in folder.iterdir()] == ["job.yaml"]
        after = rounds(load(RoundsConfig, folder / "job.yaml"))

    assert submission.folder == f"{tmp_path}/loop"
    assert submission.stem == f"capfilt-rounds-{folder_id('loop')}"
    assert len(before) == len(after) == 2
    for one, other in zip(before, after, strict=True):
        for name in ("captioner", "filter", "bootstrap", "pretrain"):
            job, sent = getattr(one, name), getattr(other, name)
            assert sent.cluster.address == "auto"
            assert sent.model_copy(update={"cluster": job.cluster}) == job
            assert sent.cluster.workers == job.cluster.workers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filter": "role: captioner\ndata: {shards: [human]}\nschedule: {epochs: 1, learning_rate: 1.0e-4}"},
         r"filter\.yaml: role: captioner, where the loop takes a filter"),
        ({"bootstrap": "input: [web]\nexport: false"}, r"bootstrap\.yaml: export: false"),
        ({"bootstrap": "input: [web]\ncluster: {address: 'ray://head:10001'}"},
         r"bootstrap: cluster\.address: ray://head:10001 is for drivers outside of the cluster"),
        ({"bootstrap": "input: ['s3://me:open-sesame@host/web']"}, r"a URL with credentials in it"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_into_a_loop_are_refused_before_anything_is_sent(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        prepare("rounds", loop(tmp_path, **changes))


def test_settings_and_code_are_shipped_and_nothing_else():
    submission = prepare("bootstrap", BOOTSTRAP)
    with staged(submission, code=True) as folder:
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        size = sum(path.stat().st_size for path in folder.rglob("*"))
        assert load(BootstrapConfig, folder / "job.yaml") == submission.config
    with staged(submission, code=False) as folder:
        assert [path.name for path in folder.iterdir()] == ["job.yaml"]

    assert {
        "job.yaml",
        "capfilt/cli/main.py",
        "capfilt/report/page.html",
        "workers/pool.py",
        "pipelines/export.py",
    } <= files
    assert {name.partition("/")[0] for name in files} == {"job.yaml", "capfilt", "workers", "pipelines"}
    assert not [name for name in files if "__pycache__" in name or Path(name).name.startswith(".")]
    assert size < 4 * 2**20
    assert not folder.exists()


def test_the_command_line_of_a_job_keeps_words_together():
    job = prepare("bootstrap", BOOTSTRAP, ["--retry-quarantined"])
    line = entrypoint(job, "python", 2, Path("/home/me/it's here"))

    assert line == (
        "python -m workers.entrypoint bootstrap job.yaml --asked-in '/runs/cc 12m' "
        "--folder '/home/me/it'\"'\"'s here' --retries 2 --retry-quarantined"
    )
