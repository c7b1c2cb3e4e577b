from pathlib import Path

import pytest
from ledgers import edit, exported_run

from capfilt.config import ExportConfig
from capfilt.export import finish_export
from capfilt.verify import verify
from pipelines import export


@pytest.fixture
def run_and_shards(tmp_path):
    return exported_run(tmp_path)


@pytest.fixture
def run(run_and_shards):
    return run_and_shards[0]


@pytest.fixture
def shards(run_and_shards):
    return run_and_shards[1]


def clean_folder(run) -> Path:
    return Path(run.clean(ExportConfig(run=run.root)))


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000])
def test_a_marker_that_says_nothing_is_told_with_what_to_do(run, content):
    (clean_folder(run) / "00003_stats.json").write_text(content)

    assert any("00003_stats.json: does not describe a clean shard" in line for line in verify(run))


@pytest.mark.parametrize("name", ["00009.tar", "00009_stats.json", "notes.txt"])
def test_a_file_too_many_in_a_clean_folder_is_named(run, name):
    (clean_folder(run) / name).write_bytes(b"")

    assert verify(run) == [f"{clean_folder(run)}/{name}: belongs to no exported shard"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"samples": 9}, "states samples 9, ledger and policy give 3"),
        ({"kept": {"web": 1}}, "states kept {'web': 1}, ledger and policy give {'synthetic': 2, 'web': 1}"),
        ({"rejected": {}}, "states rejected {}, ledger and policy give {'low_itm': 2}"),
        ({"models": "other"}, "was written for models 'other'"),
        ({"sha256": "0" * 64}, "but 00000"),
    ],
)
def test_a_clean_shard_is_checked_against_ledger_and_policy(run, changes, problem):
    edit(clean_folder(run) / "00003_stats.json", **changes)

    assert any(problem in line for line in verify(run))


def test_a_clean_folder_of_another_policy_than_its_name_says_is_found(run):
    path = clean_folder(run) / "policy.yaml"
    path.write_text(path.read_text().replace("web_itm: 0.5", "web_itm: 0.25"))

    (problem,) = verify(run)

    assert f"{path}: is the policy of the folder default-" in problem


def test_a_manifest_of_other_shards_is_found(run, shards):
    finish_export(run, shards[:1], ExportConfig(run=run.root))

    assert verify(run) == [
        f"{clean_folder(run)}/manifest.parquet: does not list the shards of the folder as they are; export again"
    ]


def test_a_clean_shard_whose_ledger_is_gone_is_not_taken_for_a_sound_one(run):
    Path(run.ledger, "00003.json").unlink()

    assert any("00003" in line for line in verify(run))


def test_an_export_that_is_not_finished_says_so(run):
    (clean_folder(run) / "_SUCCESS").unlink()

    assert verify(run) == [f"{clean_folder(run)}/_SUCCESS: is missing, so the export is not finished; export again"]


def test_what_verify_says_of_a_broken_clean_folder_mends_it(run):
    """Whichever file is gone or changed: what the lines say is done, and the folder is as before."""
    before = contents(run)

    for path in sorted(clean_folder(run).iterdir()):
        for data in (None, b"", path.read_bytes()[: path.stat().st_size // 2], path.read_bytes()[:-2] + b"x\n"):
            path.unlink()
            if data is not None:
                path.write_bytes(data)
            problems = verify(run)
            mend(run, problems)

            assert problems, path
            assert contents(run) == before, (path, problems)
    assert verify(run) == []


def contents(run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in clean_folder(run).iterdir()}


def mend(run, problems: list[str]) -> None:
    """Do what some lines say."""
    for line in problems:
        path = Path(line.partition(": ")[0])
        assert "export again" in line
        assert "\n" not in line
        if "remove its _stats.json" in line:
            path.with_name(f"{path.stem}_stats.json").unlink(missing_ok=True)
        elif "remove it and" in line:
            path.unlink()
    export.run(ExportConfig(run=run.root))


def test_a_tar_that_is_gone_is_told_by_one_line(run):
    (clean_folder(run) / "00003.tar").unlink()

    assert verify(run) == [f"{clean_folder(run)}/00003.tar: is missing; export again"]


def test_a_folder_too_many_in_a_clean_folder_is_named(run):
    (clean_folder(run) / "old").mkdir()

    assert verify(run) == [f"{clean_folder(run)}/old: belongs to no exported shard"]
