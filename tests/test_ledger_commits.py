import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from capfilt.errors import RunError
from capfilt.ledger.commits import Commit, add_up, merge, read_commit, seal, write_commit

FIRST = Commit(
    shard="00000",
    lo=0,
    hi=2,
    models="m",
    size=10,
    digest="d",
    damage="",
    statuses={"ok": 2},
    text_statuses={"missing": 1, "ok": 1},
    candidates={"synthetic": 2, "web": 1},
    tokens=9,
    seconds={"caption": 0.1},
    sha256={"samples": "a", "candidates": "b"},
    units=["00000000-00000002"],
)
SECOND = replace(
    FIRST, lo=2, hi=3, statuses={"cut": 1}, seconds={"caption": 0.2, "read": 1.5}, units=["00000002-00000003"]
)


def test_a_record_comes_back_as_it_was(tmp_path):
    write_commit(f"{tmp_path}/a.json", FIRST)

    assert read_commit(f"{tmp_path}/a.json") == FIRST


def test_neighbours_add_up():
    merged = merge([FIRST, SECOND], {"samples": "c"})
    assert list(merged.statuses) == ["cut", "ok"]  # by name, whichever came first
    assert merged == replace(
        FIRST,
        hi=3,
        statuses={"cut": 1, "ok": 2},
        text_statuses={"missing": 2, "ok": 2},
        candidates={"synthetic": 4, "web": 2},
        tokens=18,
        seconds={"caption": 0.1 + 0.2, "read": 1.5},
        sha256={"samples": "c"},
        units=["00000000-00000002", "00000002-00000003"],
    )


def test_nothing_adds_up_to_nothing():
    assert add_up(iter([])) == {}


@pytest.mark.parametrize("field", [*Commit.__dataclass_fields__, "check"])
def test_no_field_can_be_lost_or_changed_unnoticed(tmp_path, field):
    path = Path(tmp_path, "a.json")
    write_commit(str(path), FIRST)
    values = json.loads(path.read_text())

    for damaged in ({k: v for k, v in values.items() if k != field}, values | {field: "other"}):
        path.write_text(json.dumps(damaged))
        with pytest.raises(RunError, match=r"a\.json: is not a commit record .*; remove the file and bootstrap again"):
            read_commit(str(path))


@pytest.mark.parametrize("write", [lambda values: values.pop("tokens"), lambda values: values.update(more=1)])
def test_a_sealed_record_of_other_fields_is_told_as_none(tmp_path, write):
    path = Path(tmp_path, "a.json")
    values = asdict(FIRST)
    write(values)
    path.write_bytes(seal(values))
    with pytest.raises(RunError, match=r"a\.json: is not a commit record"):
        read_commit(str(path))


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "5", "null", '"x"', "[1]", "\0"])
def test_what_is_no_record_is_told_as_none(tmp_path, content):
    path = Path(tmp_path, "a.json")
    path.write_text(content)
    with pytest.raises(RunError, match=r"a\.json: is not a commit record"):
        read_commit(str(path))
