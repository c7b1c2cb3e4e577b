import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ledgers import SHARD, commit, complete, new_run, record, synthetic, web

from capfilt import storage
from capfilt.errors import RunError
from capfilt.ledger import (
    candidates_table,
    committed_units,
    complete_shards,
    fold,
    is_complete,
    read_candidates,
    read_samples,
    read_shard_commit,
    write_unit,
)
from capfilt.ledger.commits import read_commit
from capfilt.records import Unit

RECORDS = [
    record(0),
    record(1, status="decode_error", error="not an image", width=None, height=None, format=""),
    record(2, text_status="missing"),
    record(3, metadata='{"a": "é"}'),
]
CANDIDATES = [web(0), synthetic(0), synthetic(2, index=0), synthetic(2, itm=0.1, index=1), web(3, text=" as it\ncame ")]
CUTS = [0, 1, 3, 4]


@pytest.fixture
def run(tmp_path):
    return new_run(tmp_path)


def files(run) -> dict[str, str]:
    """Return the hash of every file of the ledger."""
    root = Path(run.ledger)
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def tables(run) -> dict[str, str]:
    return {name: digest for name, digest in files(run).items() if name.endswith(".parquet")}


def test_rows_come_back_as_they_were(run):
    complete(run, SHARD, RECORDS, CANDIDATES)

    samples, candidates = read_samples(run, SHARD).to_pylist(), read_candidates(run, SHARD).to_pylist()

    assert [row["position"] for row in samples] == [0, 1, 2, 3]
    assert samples[1] == {
        "shard": "00000",
        "position": 1,
        "key": "key1",
        "image_sha256": f"{1:064x}",
        "width": None,
        "height": None,
        "format": "",
        "url": "http://example.org/1",
        "metadata": "",
        "status": "decode_error",
        "text_status": "ok",
        "error": "not an image",
    }
    assert [(row["position"], row["source"], row["caption_index"], row["text"]) for row in candidates] == [
        (0, "web", 0, "a web text"),
        (0, "synthetic", 0, "a caption"),
        (2, "synthetic", 0, "a caption"),
        (2, "synthetic", 1, "a caption"),
        (3, "web", 0, " as it\ncame "),
    ]
    assert candidates[1] == {
        "shard": "00000",
        "position": 0,
        "key": "key0",
        "source": "synthetic",
        "caption_index": 0,
        "text": "a caption",
        "captioner": "c0ffee",
        "round": 0,
        "seed": 7,
        "tokens": 5,
        "logprob": -2.5,
        "itm": 0.5,
        "itc": 0.125,
    }


def test_the_record_counts_and_adds_up(run):
    fold(run, SHARD, commit(run, SHARD, CUTS, RECORDS, CANDIDATES))

    done = read_shard_commit(run, SHARD)

    assert (done.lo, done.hi, done.size, done.digest) == (0, 4, 1000, "d16e57")
    assert done.statuses == {"decode_error": 1, "ok": 3}
    assert done.text_statuses == {"missing": 1, "ok": 3}
    assert done.candidates == {"synthetic": 3, "web": 2}
    assert done.tokens == 15
    assert done.seconds == {"caption": 1.5, "score": 0.75}
    assert done.units == ["00000000-00000001", "00000001-00000003", "00000003-00000004"]


def test_files_say_which_schema_and_models_they_are_of(run):
    complete(run, SHARD, RECORDS, CANDIDATES)

    for name in ("samples", "candidates"):
        metadata = pq.read_schema(f"{run.ledger}/00000.{name}.parquet").metadata
        assert metadata[b"schema"] == b"1"
        assert metadata[b"models"] == run.models.encode()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_folded_shard_does_not_depend_on_how_it_was_cut_or_in_which_order(tmp_path, order):
    whole, cut = new_run(f"{tmp_path}/a"), new_run(f"{tmp_path}/b")
    complete(whole, SHARD, RECORDS, CANDIDATES)
    spans = [(lo, hi) for lo, hi in itertools.pairwise(CUTS)]

    units = [commit(cut, SHARD, list(spans[place]), RECORDS, CANDIDATES)[0] for place in order]
    fold(cut, SHARD, units)

    assert tables(cut) == tables(whole)


def test_a_unit_without_any_candidate_and_one_without_failures_fold_alike(run):
    fold(run, SHARD, commit(run, SHARD, CUTS, RECORDS, []))

    assert read_candidates(run, SHARD).num_rows == 0
    assert read_samples(run, SHARD).num_rows == 4


def test_a_folded_shard_leaves_three_files(run):
    fold(run, SHARD, commit(run, SHARD, CUTS, RECORDS, CANDIDATES))

    assert sorted(files(run)) == ["00000.candidates.parquet", "00000.json", "00000.samples.parquet"]
    assert not Path(run.parts(SHARD)).exists()


def test_a_second_commit_changes_nothing(run):
    (unit, *_) = commit(run, SHARD, CUTS, RECORDS, CANDIDATES)
    before = files(run)

    write_unit(run, unit, [record(0, key="another")], candidates_table(SHARD.id, []), {"caption": 99.0})

    assert files(run) == before


def test_a_late_attempt_changes_nothing_in_a_folded_shard(run):
    units = commit(run, SHARD, CUTS, RECORDS, CANDIDATES)
    fold(run, SHARD, units)
    before = files(run)

    commit(run, SHARD, CUTS, RECORDS, [])
    fold(run, SHARD, units)

    assert files(run) == before


def test_committed_units_are_those_with_a_record(run):
    assert committed_units(run, SHARD) == set()

    units = commit(run, SHARD, CUTS, RECORDS, CANDIDATES)
    Path(run.parts(SHARD), f"{units[1].name}.json").unlink()

    assert committed_units(run, SHARD) == {units[0].name, units[2].name}
    assert complete_shards(run) == set()


def test_a_folded_shard_has_all_its_units_committed(run):
    units = commit(run, SHARD, CUTS, RECORDS, CANDIDATES)
    fold(run, SHARD, units)

    assert is_complete(run, SHARD)
    assert complete_shards(run) == {"00000"}
    assert committed_units(run, SHARD) == {unit.name for unit in units}


def test_the_same_command_goes_on_after_a_death_between_any_two_writes(tmp_path, monkeypatch):
    """The n-th write of an attempt dies, for every n; then the same steps run again and give the same bytes."""
    clean = new_run(f"{tmp_path}/clean")
    fold(clean, SHARD, commit(clean, SHARD, CUTS, RECORDS, CANDIDATES))
    steps = 3 * 3 + 3 + 1  # files of three units, of the folded shard, and the removal of the parts
    died = 0
    for step in range(steps + 1):
        run = new_run(f"{tmp_path}/{step}")
        with monkeypatch.context() as patch:
            died += bootstrap_and_die(run, patch, step)
        fold(run, SHARD, commit(run, SHARD, CUTS, RECORDS, CANDIDATES))

        assert files(run) == files(clean)
    assert died == steps


def bootstrap_and_die(run, patch, step) -> bool:
    """Take a shard through the ledger, and die before write number `step`; say whether it came to that."""
    from capfilt import storage

    writes = itertools.count()

    def dying(write):
        def or_die(*arguments):
            if next(writes) == step:
                raise KeyboardInterrupt
            write(*arguments)

        return or_die

    for name in ("publish", "remove_folder"):
        patch.setattr(storage, name, dying(getattr(storage, name)))
    try:
        fold(run, SHARD, commit(run, SHARD, CUTS, RECORDS, CANDIDATES))
    except KeyboardInterrupt:
        return True
    return False


def test_a_shard_is_folded_only_when_all_units_are_in(run):
    units = commit(run, SHARD, CUTS, RECORDS, CANDIDATES)
    Path(run.parts(SHARD), f"{units[1].name}.json").unlink()

    with pytest.raises(RunError, match="units 00000001-00000003 are not committed"):
        fold(run, SHARD, units)

    assert not is_complete(run, SHARD)


@pytest.mark.parametrize("chosen", [[0, 1], [1, 2], [0, 2], [0, 0, 1, 2], []])
def test_units_that_do_not_make_up_the_shard_are_refused(run, chosen):
    units = commit(run, SHARD, CUTS, RECORDS, CANDIDATES)

    with pytest.raises(RunError, match="do not make up its 4 samples"):
        fold(run, SHARD, [units[place] for place in chosen])


def test_a_shard_without_samples_folds(tmp_path):
    empty = replace(SHARD, samples=0)
    run = new_run(tmp_path, [empty])

    fold(run, empty, [])

    assert read_samples(run, empty).num_rows == 0


def test_a_changed_part_is_not_folded(run):
    units = commit(run, SHARD, CUTS, RECORDS, CANDIDATES)
    part = Path(run.parts(SHARD), f"{units[0].name}.samples.parquet")
    part.write_bytes(part.read_bytes()[:-1] + b"X")

    with pytest.raises(RunError, match=r"00000000-00000001\.samples\.parquet: is not the file that was committed"):
        fold(run, SHARD, units)


@pytest.mark.parametrize(
    ("records", "candidates", "message"),
    [
        ([record(0)], [], "1 records that are not its 2 samples"),
        ([record(1), record(0)], [], "2 records that are not its 2 samples in order"),
        ([record(0), record(0)], [], "2 records that are not its 2 samples in order"),
        ([record(0), record(1, status="decode_error")], [web(1)], r"candidates at positions \[1\]"),
        ([record(0), record(1)], [web(2)], r"candidates at positions \[2\]"),
        ([record(0), record(1)], [web(1), web(0)], "not ordered by position"),
    ],
)
def test_a_unit_that_does_not_account_for_its_samples_is_refused(run, records, candidates, message):
    with pytest.raises(RunError, match=message):
        write_unit(run, Unit(SHARD, 0, 2), records, candidates_table(SHARD.id, candidates), {})

    assert committed_units(run, SHARD) == set()


def test_a_unit_whose_shard_another_attempt_folds_while_it_is_written_is_committed(run, monkeypatch):
    def written_late(path: Path) -> int:
        monkeypatch.undo()
        complete(run, SHARD, RECORDS, CANDIDATES)
        return storage.mode_of_new(path)  # in the folder that went with the fold

    monkeypatch.setattr(storage, "mode_of_new", written_late)
    commit(run, SHARD, [0, SHARD.samples], RECORDS, CANDIDATES)

    assert sorted(files(run)) == ["00000.candidates.parquet", "00000.json", "00000.samples.parquet"]


def test_a_unit_that_cannot_be_written_is_not_committed(run):
    Path(run.ledger).mkdir(parents=True)
    Path(run.parts(SHARD)).write_bytes(b"")

    with pytest.raises(OSError, match="00000"):
        commit(run, SHARD, [0, SHARD.samples], RECORDS, CANDIDATES)


def test_a_unit_of_which_a_table_cannot_be_put_in_its_place_is_not_committed(run):
    Path(run.parts(SHARD), "00000000-00000004.candidates.parquet").mkdir(parents=True)

    with pytest.raises(OSError, match=r"00000000-00000004\.candidates\.parquet"):
        commit(run, SHARD, [0, SHARD.samples], RECORDS, CANDIDATES)

    assert committed_units(run, SHARD) == set()


def test_an_incomplete_shard_cannot_be_read(run):
    commit(run, SHARD, CUTS, RECORDS, CANDIDATES)

    with pytest.raises(RunError, match=r"in/00000\.tar: its ledger is not complete"):
        read_candidates(run, SHARD)


def test_a_flipped_byte_is_noticed_when_it_is_read(run):
    complete(run, SHARD, RECORDS, CANDIDATES)
    path = Path(run.ledger, "00000.candidates.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(RunError, match=r"00000\.candidates\.parquet: is not the file that was committed"):
        read_candidates(run, SHARD)


def test_a_missing_table_is_told_as_a_changed_one_is(run):
    complete(run, SHARD, RECORDS, CANDIDATES)
    Path(run.ledger, "00000.candidates.parquet").unlink()

    with pytest.raises(
        RunError, match=r"00000\.candidates\.parquet: is missing; remove its \.json and bootstrap again"
    ):
        read_candidates(run, SHARD)


@pytest.mark.parametrize("damage", [("{", ""), ('"shard"', '"sh"'), ('"tokens": 15', '"tokens": 16'), ("0.5", "0.4")])
def test_a_damaged_record_is_named(run, damage):
    complete(run, SHARD, RECORDS, CANDIDATES)
    path = f"{run.ledger}/00000.json"
    Path(path).write_text(Path(path).read_text().replace(*damage))

    with pytest.raises(RunError, match=r"00000\.json: is not a commit record"):
        read_commit(path)


def test_a_ledger_can_lie_on_an_object_store(tmp_path):
    run = new_run(f"memory://{tmp_path}")

    fold(run, SHARD, commit(run, SHARD, CUTS, RECORDS, CANDIDATES))

    assert read_candidates(run, SHARD).num_rows == len(CANDIDATES)
    assert complete_shards(run) == {"00000"}
