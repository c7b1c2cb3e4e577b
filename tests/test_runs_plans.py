import re
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ledgers import SHARD, new_run

from capfilt.errors import RunError
from capfilt.runs.plans import shard_ids


def test_the_plan_comes_back_in_order(tmp_path):
    shards = [replace(SHARD, id="b", damage="cut at 512"), replace(SHARD, id="a")]
    run = new_run(tmp_path, shards)

    assert run.plan() == shards


@pytest.mark.parametrize("keep", [0, 4, -4, None])
def test_a_damaged_plan_is_told_in_one_line_with_the_remedy(tmp_path, keep):
    run = new_run(tmp_path, [SHARD])
    path = tmp_path / "run/plan/shards.parquet"
    data = bytearray(path.read_bytes()[:keep])
    data[20:40] = bytes(20) if keep is None else data[20:40]
    path.write_bytes(data)

    with pytest.raises(RunError) as raised:
        run.plan()
    told = str(raised.value)
    assert told.startswith(f"{path}: is not a plan (")
    assert told.endswith(
        "; remove the file and bootstrap again: the same inputs are planned again, and all that is committed is kept"
    )
    assert "\n" not in told


def test_a_flipped_bit_changes_no_plan_without_a_word(tmp_path):
    run = new_run(tmp_path, [replace(SHARD, id=name, url=f"in/{name}.tar") for name in "abc"])
    path, planned = tmp_path / "run/plan/shards.parquet", run.plan()
    data = path.read_bytes()

    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            found = run.plan()
        except RunError:
            continue
        assert found == planned, f"byte {place}"


@pytest.mark.parametrize("column", [{"key": ["a"]}, {"id": pa.array([b"\xff"]).view(pa.string())}])
def test_a_table_of_something_else_is_no_plan(tmp_path, column):
    run = new_run(tmp_path, [SHARD])
    pq.write_table(pa.table(column), tmp_path / "run/plan/shards.parquet")

    with pytest.raises(RunError, match="is not a plan"):
        run.plan()


@pytest.mark.parametrize("bad", ["../outside", "a/b", ".hidden", "", "a b"])
def test_a_shard_id_that_is_no_plain_file_name_is_refused(tmp_path, bad):
    with pytest.raises(RunError, match="cannot name a file"):
        new_run(tmp_path, [replace(SHARD, id=bad)])


def test_two_shards_of_one_id_are_refused(tmp_path):
    other = replace(SHARD, id="00001")
    with pytest.raises(RunError, match="several shards have the id 00000, 00001; rename"):
        new_run(tmp_path, [other, SHARD, other, replace(SHARD, url="other/00000.tar")])


def test_shard_ids_are_file_names_whatever_the_order():
    urls = ["a/00000.tar", "s3://b/00001.tar.gz", "what?/x%20y.parquet", "d/..tar", "e/blé.tgz"]

    ids = shard_ids(urls)

    assert ids == ["00000", "00001", "x_20y", "_", "bl_"]
    assert shard_ids(urls[::-1]) == ids[::-1]


def test_a_name_that_leaves_no_room_for_endings_is_cut_and_told_by_its_url(tmp_path):
    urls = [f"{'n' * length}.tar" for length in (236, 237, 251)] + [f"{folder}/{'m' * 230}.tar" for folder in "ab"]

    ids = shard_ids(urls)

    assert ids[0] == "n" * 236
    assert len(set(ids)) == 5
    for id_ in ids:
        (tmp_path / f"{id_}.candidates.parquet").touch()


def test_shards_of_one_name_get_ids_of_their_own(tmp_path):
    urls = ["train/00000.tar", "test/00000.tar", "train/00001.tar"]

    ids = shard_ids(urls)

    assert len(set(ids)) == 3
    assert all(id_.startswith("00000-") for id_ in ids[:2])
    assert shard_ids(urls[::-1]) == ids[::-1]
    new_run(tmp_path, [replace(SHARD, id=id_) for id_ in ids])


def test_the_files_of_no_clean_shard_are_named_as_the_manifest():
    (id_,) = shard_ids(["in/manifest.tar"])

    assert re.fullmatch("manifest-[0-9a-f]{12}", id_)
