from pathlib import Path

import pytest
from ledgers import CHECKPOINTS, config, new_run

from capfilt import storage
from capfilt.config import ExportConfig, Policy
from capfilt.errors import CheckpointError, ConfigError, RunError, WorkerError
from capfilt.records import Shard
from capfilt.runs import Run, begun_with, forgotten_unless_begun, load_run, start_run
from capfilt.runs.lease import hold_lease
from capfilt.runs.record import CODE


def test_opening_a_run_again_gives_the_same_run(tmp_path):
    assert start_run(config(tmp_path), CHECKPOINTS) == start_run(config(tmp_path), CHECKPOINTS)


def test_a_reader_finds_the_run_and_its_settings_by_its_folder_alone(tmp_path):
    run = start_run(config(tmp_path, seed=3), CHECKPOINTS)

    assert load_run(f"{tmp_path}/run") == run
    assert run.config() == config(tmp_path, seed=3)


def test_a_relative_folder_means_the_same_in_every_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert start_run(config("."), CHECKPOINTS).root == f"{tmp_path}/run"


@pytest.mark.parametrize(
    "changes",
    [
        {"unit_size": 64},
        {"decode_threads": 8},
        {"cluster": {"workers": 9}},
        {"policy": {"web_itm": 0.9}},
        {"captioner": "the same weights elsewhere"},
        {"damage": "keep-readable"},
        {"max_failed_share": 0.9},
    ],
)
def test_a_setting_that_no_result_depends_on_may_change(tmp_path, changes):
    run = start_run(config(tmp_path), CHECKPOINTS)

    assert start_run(config(tmp_path, **changes), CHECKPOINTS) == run
    assert run.config() == config(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seed": 5}, "seed: 0 in the run, 5 here"),
        ({"sampling": {"top_p": 0.95}}, "sampling.top_p: 0.9 in the run, 0.95 here"),
        ({"images": {"min_side": 8}}, "images.min_side: 1 in the run, 8 here"),
        ({"images": {"jpeg_margin": None}}, "images.jpeg_margin: 2.0 in the run, None here"),
        ({"input": ["in", "more"]}, "input: ['in'] in the run, ['in', 'more'] here"),
        ({"max_failed_share": 0.25}, "max_failed_share: 0.5 in the run, 0.25 here; it can only be loosened"),
    ],
)
def test_a_setting_that_changes_results_is_refused_with_both_values(tmp_path, changes, line):
    start_run(config(tmp_path), CHECKPOINTS)
    before = Path(tmp_path, "run", "run.yaml").read_bytes()

    with pytest.raises(RunError, match="start another run") as caught:
        start_run(config(tmp_path, **changes), CHECKPOINTS)

    assert str(caught.value).splitlines()[1:] == [f"  {line}"]
    assert Path(tmp_path, "run", "run.yaml").read_bytes() == before


def test_a_run_of_a_version_that_says_other_things_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("capfilt.runs.record.CODE", "2")
        start_run(config(tmp_path), CHECKPOINTS)

    with pytest.raises(RunError) as caught:
        start_run(config(tmp_path), CHECKPOINTS)

    assert str(caught.value).splitlines()[1:] == [f"  version of capfilt's results: '2' in the run, '{CODE}' here"]
    assert load_run(f"{tmp_path}/run").root == f"{tmp_path}/run"  # it can be looked at all the same


def test_a_run_keeps_its_ledger_where_settings_have_come_since(tmp_path):
    """A new key whose default gives the same results changes what the settings hash to."""
    run = start_run(config(tmp_path), CHECKPOINTS)
    record = tmp_path / "run" / "run.yaml"
    record.write_text(record.read_text().replace(f"models: {run.models}", "models: 0123456789ab"))

    assert start_run(config(tmp_path), CHECKPOINTS).models == "0123456789ab"
    assert load_run(f"{tmp_path}/run").models == "0123456789ab"


def test_damage_once_accepted_stays_accepted(tmp_path):
    start_run(config(tmp_path, damage="keep-readable"), CHECKPOINTS)

    with pytest.raises(RunError, match="damage: 'keep-readable' in the run, 'skip-shard' here"):
        start_run(config(tmp_path, damage="skip-shard"), CHECKPOINTS)


def test_all_differences_are_listed(tmp_path):
    start_run(config(tmp_path), CHECKPOINTS)

    with pytest.raises(RunError) as caught:
        start_run(config(tmp_path, seed=1, round=2), CHECKPOINTS | {"filter": "0ther"})

    assert str(caught.value).splitlines()[1:] == [
        "  round: 0 in the run, 2 here",
        "  seed: 0 in the run, 1 here",
        "  checkpoint of the filter: 'f117e4' in the run, '0ther' here",
    ]


@pytest.mark.parametrize("inner", ["states", "checkpoint"])
def test_the_folder_of_a_training_is_refused(tmp_path, inner):
    (tmp_path / "run" / inner).mkdir(parents=True)
    start_run(config(tmp_path, run=f"{tmp_path}/run/{inner}"), CHECKPOINTS)
    (tmp_path / "run/config.yaml").write_text("role: filter\n")

    with pytest.raises(RunError, match="/run: holds a training; start the run in another folder"):
        start_run(config(tmp_path), CHECKPOINTS)
    assert not (tmp_path / "run/run.yaml").exists()


def fail(run: Run, error: Exception) -> bool:
    """End the work on a planned run by an error, and return whether it is known what it was begun with."""
    record, plan = (Path(run.root, name) for name in ("run.yaml", "plan/shards.parquet"))
    with hold_lease(run.root) as lease, pytest.raises(type(error)), forgotten_unless_begun(run, lease):
        raise error
    assert record.exists() == plan.exists()
    return record.exists()


@pytest.fixture
def planned(tmp_path) -> Run:
    return new_run(tmp_path, [Shard("0", "in/0.tar", 1000, "d16e57", 1)])


@pytest.mark.parametrize(
    ("error", "stays"), [(ConfigError, False), (CheckpointError, False), (WorkerError, False), (RunError, True)]
)
def test_a_run_that_cannot_begin_with_its_settings_is_forgotten(planned, error, stays):
    assert fail(planned, error("none of these")) == stays


@pytest.mark.parametrize("file", ["ledger/{}/0.json", "ledger/{}/0/00000000-00000001.json", "quarantine/{}/0/0.json"])
def test_a_run_of_which_anything_is_committed_is_not_forgotten(planned, file):
    storage.publish(f"{planned.root}/{file.format(planned.models)}", b"{}")

    assert fail(planned, WorkerError("no worker can be built"))


def test_nor_is_one_that_another_driver_has_taken(planned):
    with hold_lease(planned.root) as lease, hold_lease(planned.root, force=True):
        with pytest.raises(WorkerError), forgotten_unless_begun(planned, lease):
            raise WorkerError("no worker can be built")

        assert planned.has_plan()
        assert load_run(planned.root) == planned


def test_nor_is_one_that_cannot_be_looked_through_whose_own_error_is_told(planned, caplog):
    Path(planned.root, "ledger").symlink_to("ledger")  # leads nowhere

    assert fail(planned, WorkerError("no worker can be built"))
    assert "the settings of the run were not removed: " in caplog.text


def test_a_folder_without_run_yaml_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"run\.yaml: not found, so this is not a run folder"):
        load_run(str(tmp_path))


@pytest.mark.parametrize("inner", ["first", "round-0/bootstrap"])
def test_a_folder_of_runs_is_answered_with_them(tmp_path, inner):
    (tmp_path / "other").mkdir()
    run = start_run(config(tmp_path, run=f"{tmp_path}/{inner}"), CHECKPOINTS)
    with pytest.raises(RunError, match=f"is not a run folder; give one that it holds: {run.root}$"):
        load_run(str(tmp_path))


@pytest.mark.parametrize("data", [b"{[", b"\xff\xfe", b"", b"models: 3\n", b"- a\n"])
def test_a_record_that_is_broken_is_named_with_the_remedy(tmp_path, data):
    start_run(config(tmp_path), CHECKPOINTS)
    path = tmp_path / "run/run.yaml"
    path.write_bytes(data)

    for call in (lambda: load_run(str(tmp_path / "run")), lambda: start_run(config(tmp_path), CHECKPOINTS)):
        with pytest.raises(
            RunError, match=rf"^{path}: is not the record of a run \((.|\n)*\); put back a copy of it, or"
        ):
            call()


def test_a_run_whose_record_was_removed_is_found_again_by_its_settings(tmp_path):
    run = start_run(config(tmp_path), CHECKPOINTS)
    (tmp_path / "run/run.yaml").unlink()

    assert start_run(config(tmp_path), CHECKPOINTS) == run


def test_runs_of_equal_results_have_ledgers_of_one_name_wherever_they_lie(tmp_path):
    """The name stands in the tables, which are to have the same bytes."""
    run = start_run(config(tmp_path / "a"), CHECKPOINTS)

    for n, changes in enumerate([{}, {"cluster": {"workers": 9}}, {"policy": {"web_itm": 0.9}}]):
        assert start_run(config(tmp_path / f"b{n}", **changes), CHECKPOINTS).models == run.models
    assert start_run(config(tmp_path / "c", seed=1), CHECKPOINTS).models != run.models
    assert start_run(config(tmp_path / "d"), CHECKPOINTS | {"filter": "0ther"}).models != run.models


def test_a_run_without_a_plan_says_so(tmp_path):
    run = start_run(config(tmp_path), CHECKPOINTS)

    assert not run.has_plan()
    with pytest.raises(RunError, match="no plan yet"):
        run.plan()


def test_clean_shards_of_other_selections_lie_elsewhere(tmp_path):
    run = start_run(config(tmp_path), CHECKPOINTS)
    exports = [
        ExportConfig(run=run.root),
        ExportConfig(run=run.root, policy=Policy(web_itm=0.75)),
        ExportConfig(run=run.root, keep_empty=True),
        ExportConfig(run=run.root, workers=4),
    ]

    folders = [run.clean(export) for export in exports]

    assert folders[0].startswith(f"{run.root}/clean/default-")
    assert len(set(folders)) == 3
    assert folders[3] == folders[0]


def test_a_file_where_a_run_is_wanted_is_told(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("seed: 1")

    for ask in (load_run, begun_with, lambda root: start_run(config(tmp_path, run=root), CHECKPOINTS)):
        with pytest.raises(RunError, match=r"/my\.yaml: is a file; give the folder of a run$"):
            ask(str(path))
