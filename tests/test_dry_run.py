from pathlib import Path

import pytest

from capfilt.dry_run import DryRun
from capfilt.errors import ConfigError


def test_a_problem_does_not_hide_the_ones_behind_it():
    dry = DryRun("export")
    with dry.examine():
        raise ConfigError("run: is none; give another")
    with dry.examine():
        dry.tell("does", "3 shards")
    with dry.examine():
        raise OSError("no answer")
    assert dry.problems == ["run: is none; give another", "no answer"]
    assert str(dry).splitlines() == [
        "export, dry run: nothing was written",
        "  does  3 shards",
        "problem: run: is none; give another",
        "problem: no answer",
    ]


def test_an_error_of_the_program_is_none_of_the_users():
    dry = DryRun("export")
    with pytest.raises(ZeroDivisionError), dry.examine():
        _ = 1 / 0


def test_a_disk_that_is_too_small_is_a_problem(tmp_path):
    dry = DryRun("export")
    dry.writes(str(tmp_path / "not" / "there"), 1e18)
    (problem,) = dry.problems
    assert problem.startswith(f"{tmp_path}/not/there: needs up to 1,000,000.0 TB, ")
    assert problem.endswith("are free; make room, or write elsewhere")


def test_a_file_in_the_place_of_a_folder_is_a_problem(tmp_path):
    (tmp_path / "file").write_text("")
    dry = DryRun("export")
    dry.writes(str(tmp_path / "file" / "run"), 1)
    assert dry.problems == [
        f"{tmp_path}/file/run: {tmp_path}/file cannot be written; change its permissions, or write elsewhere"
    ]


def test_a_place_that_has_room_is_told_with_what_goes_there(tmp_path):
    dry = DryRun("export")
    dry.writes(str(tmp_path), 2048)
    assert dry.problems == []
    assert dry.facts[0][1].startswith(f"{tmp_path}, up to 2.0 kB; ")
    assert list(Path(tmp_path).iterdir()) == []


def test_nothing_is_asked_of_an_object_store():
    dry = DryRun("export")
    dry.writes("s3://nobody/run", 1e18)
    assert (dry.facts, dry.problems) == ([("writes", "s3://nobody/run, up to 1,000,000.0 TB")], [])


def test_what_is_told_cannot_steer_a_terminal():
    dry = DryRun("export")
    dry.tell("does", "\x1b[2J")
    assert "\x1b" not in str(dry)
