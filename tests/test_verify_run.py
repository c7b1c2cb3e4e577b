import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ledgers import commit, config, edit, exported_run, image, input_shard, new_run, record, web

from capfilt import storage
from capfilt.errors import RunError
from capfilt.indexing import index_shard
from capfilt.ledger import fold
from capfilt.runs import load_run, start_run
from capfilt.verify import verify


@pytest.fixture
def run(tmp_path):
    return exported_run(tmp_path)[0]


def files(run, *folders) -> list[Path]:
    return sorted(path for folder in folders for path in Path(run.root, folder).rglob("*") if path.is_file())


def test_a_whole_run_has_no_problems(run):
    assert verify(run) == []


def test_a_missing_file_is_named_whichever_it_is(run):
    paths = files(run, "ledger", "clean")
    assert len(paths) == 2 * 3 + 2 * 3 + 3

    for path in paths:
        data = path.read_bytes()
        path.unlink()
        problems = verify(run)
        path.write_bytes(data)

        assert any(path.name in problem or path.name.partition("_")[0] in problem for problem in problems), path
    assert verify(run) == []


def test_a_flipped_bit_is_found_wherever_it_is(run):
    for path in files(run, "ledger", "clean"):
        data = path.read_bytes()
        for place in range(0, len(data), max(1, len(data) // 7)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])

            assert verify(run), f"{path}: byte {place}"
        path.write_bytes(data)
    assert verify(run) == []


def test_a_flipped_bit_in_the_settings_is_found_wherever_it_is(run):
    path = Path(run.root, "run.yaml")
    data = path.read_bytes()

    for place in [*range(data.index(b"\n") + 2), *range(0, len(data), 29), len(data) - 1]:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            problems = verify(load_run(run.root))
        except RunError as error:
            problems = [str(error)]
        assert problems, f"byte {place}"
        assert problems[0].startswith(str(path)), f"byte {place}"


@pytest.mark.parametrize("cut_at", [b"\n  sampling:", b"\n  policy:", None], ids=["a section", "another", "last byte"])
def test_settings_that_were_cut_short_are_told_with_the_remedy(run, cut_at):
    """As YAML and as settings they are still whole: what is missing has a default."""
    path = Path(run.root, "run.yaml")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] if cut_at is None else whole[: whole.index(cut_at)])

    assert verify(run) == [
        f"{path}: has changed since it was written; put back a copy of it, or remove it and bootstrap again with "
        "exactly the settings of the run"
    ]


def test_settings_of_an_earlier_version_had_no_seal(run):
    path = Path(run.root, "run.yaml")
    path.write_bytes(path.read_bytes().partition(b"\n")[2])

    assert verify(run) == []


def test_a_broken_index_is_named_and_a_missing_one_is_no_problem(run):
    for shard in run.plan():
        index_shard(run, shard.id, shard.url)
    first, second = files(run, "plan/index")
    assert verify(run) == []

    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()

    assert verify(run) == [
        f"{first}: is not an index (its bytes are not those that were written); remove it: the headers of "
        f"{run.plan()[0].url} are read in its place"
    ]


def test_an_index_that_does_not_answer_is_not_told_to_be_removed(run):
    index_shard(run, run.plan()[0].id, run.plan()[0].url)
    (index,) = files(run, "plan/index")
    index.unlink()
    index.symlink_to("another disk")

    assert verify(run) == [f"[Errno 2] No such file or directory: '{index}'"]


@pytest.mark.parametrize("place", ["ledger/x.json", "clean/x", "clean/other/x.tar"])
def test_a_file_too_many_is_named(run, place):
    path = Path(run.root, place)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")

    problems = verify(run)

    assert len(problems) == 1
    assert str(path.parent) in problems[0]


@pytest.mark.parametrize("step", ["list_files", "read_bytes"])
def test_a_shard_that_is_completed_while_it_is_looked_at_is_no_problem(tmp_path, monkeypatch, step):
    shard = input_shard(tmp_path, [image(position) for position in range(4)])
    run = new_run(tmp_path, [shard])
    units = commit(run, shard, [0, 2, 4], [record(position) for position in range(4)], [web(0)])
    real = getattr(storage, step)

    def folding(path: str) -> object:
        if not path.startswith(run.parts(shard)):
            return real(path)
        found = real(path) if step == "list_files" else None
        monkeypatch.undo()
        fold(run, shard, units)
        return real(path) if found is None else found

    monkeypatch.setattr(storage, step, folding)

    assert verify(run) == []


def test_files_of_other_settings_and_shards_are_named(run):
    Path(run.root, "ledger", "another").mkdir()
    Path(run.ledger, "00009").mkdir()

    assert verify(run) == [
        f"{run.ledger}/00009: belongs to no shard of the plan",
        f"{run.root}/ledger/another: is not part of the ledger of the run's models, {run.models}",
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"digest": "other"}, "digest is 'other', the plan says"),
        ({"hi": 9}, "hi is 9, the plan says 3"),
        ({"models": "other"}, "models is 'other', the plan says"),
        ({"statuses": {"ok": 2}}, "states statuses {'ok': 2}, the tables hold {'ok': 3}"),
        ({"text_statuses": {}}, "states text_statuses {}, the tables hold {'ok': 3}"),
        ({"candidates": {"web": 5}}, "states candidates {'web': 5}, the tables hold {'synthetic': 3, 'web': 2}"),
        ({"tokens": 1}, "states tokens 1, the tables hold 15"),
    ],
)
def test_a_record_that_disagrees_with_its_tables_or_the_plan_is_found(run, changes, problem):
    edit(f"{run.ledger}/00003.json", **changes)

    problems = verify(run)

    assert len(problems) == 1
    assert problem in problems[0]


def rewrite(run, name, change) -> None:
    """Replace a table of shard 00003 by another one, hash and all, as a faulty program would have written it."""
    import hashlib

    path = Path(run.ledger, f"00003.{name}.parquet")
    pq.write_table(change(pq.read_table(path)), path)
    hashes = json.loads(Path(run.ledger, "00003.json").read_text())["sha256"]
    edit(f"{run.ledger}/00003.json", sha256=hashes | {name: hashlib.sha256(path.read_bytes()).hexdigest()})


def column(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values, table.schema.field(name).type))


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("samples", lambda t: t.take([0, 1, 1]), "does not hold each of the samples 0 to 2 once"),
        ("samples", lambda t: t.take([0, 2, 1]), "does not hold each of the samples 0 to 2 once"),
        ("samples", lambda t: t.slice(0, 2), "does not hold each of the samples 0 to 2 once"),
        ("samples", lambda t: column(t, "shard", ["00003", "00004", "00003"]), "holds rows of other shards"),
        ("samples", lambda t: column(t, "status", ["ok", "ok", "broken"]), "2 candidates of samples that were not"),
        ("samples", lambda t: t.drop(["url"]), "not those of the samples table"),
        ("samples", lambda t: t.replace_schema_metadata({}), "has models ''"),
        ("candidates", lambda t: column(t, "position", [0, 0, 1, 2, 7]), "1 candidate of samples that were not"),
        ("candidates", lambda t: column(t, "key", ["key1"] * 5), "its keys are not those of the samples"),
        ("candidates", lambda t: t.take([0, 1, 2, 3, 4, 4]), "holds a candidate twice"),
        ("candidates", lambda t: t.slice(0, 4), "the tables hold {'synthetic': 2, 'web': 2}"),
    ],
)
def test_rows_that_cannot_be_true_are_found(run, name, change, problem):
    rewrite(run, name, change)

    assert any(problem in line for line in verify(run))


def test_a_run_in_work_is_told_what_is_missing(tmp_path):
    shard = input_shard(tmp_path, [image(n) for n in range(4)])
    run = new_run(tmp_path, [shard])
    records = [record(position) for position in range(4)]
    stem = f"{run.ledger}/00000"
    incomplete = f"{stem}.json: is missing, so shard {shard.url} is not complete; bootstrap again"

    assert verify(run) == [f"{stem}: samples 0 to 3 are in no unit", incomplete]
    commit(run, shard, [0, 1], records, [web(0)])
    commit(run, shard, [2, 3], records, [])
    assert verify(run) == [
        f"{stem}: samples 1 to 1 are in no unit",
        f"{stem}: samples 3 to 3 are in no unit",
        incomplete,
    ]
    commit(run, shard, [1, 4], records, [])
    assert verify(run) == [f"{stem}: samples 2 to 3 are in two units", incomplete]


def test_parts_of_an_attempt_that_died_are_named(tmp_path):
    shard = input_shard(tmp_path, [image(0)])
    run = new_run(tmp_path, [shard])
    (unit,) = commit(run, shard, [0, 1], [record(0)], [])
    Path(run.parts(shard), f"{unit.name}.json").unlink()

    problems = verify(run)

    assert f"{run.parts(shard)}/{unit.name}.samples.parquet: belongs to no committed unit" in problems


def test_parts_beside_a_folded_shard_are_named(tmp_path):
    shard = input_shard(tmp_path, [image(0)])
    run = new_run(tmp_path, [shard])
    units = commit(run, shard, [0, 1], [record(0)], [])
    shutil.copytree(run.parts(shard), f"{tmp_path}/kept")
    fold(run, shard, units)
    shutil.copytree(f"{tmp_path}/kept", run.parts(shard))

    (problem,) = verify(run)

    assert f"{run.parts(shard)}: 3 files left over" in problem


@pytest.mark.parametrize(("damage", "problems"), [("fail", 2), ("skip-shard", 0), ("keep-readable", 2)])
def test_a_damaged_shard_may_be_left_out_only_where_the_run_says_so(tmp_path, damage, problems):
    shard = input_shard(tmp_path, [image(0)], id_="00003")
    run = start_run(config(tmp_path, damage=damage), {"captioner": "c", "filter": "f"})
    run.write_plan([replace(shard, damage="cut short at byte 512")])

    found = verify(run)

    assert len(found) == problems
    assert all("00003" in problem for problem in found)
