"""The engine answers from its files within its memory, and a question cannot change that."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capfilt.query import engine


@pytest.fixture
def files(tmp_path) -> dict[str, list[str]]:
    """Two files of one table, and one of another."""
    for name, numbers in (("0", [1, 2]), ("1", [3]), ("2", [4])):
        pq.write_table(pa.table({"n": numbers}), tmp_path / f"{name}.parquet")
    return {"numbers": [str(tmp_path / f"{name}.parquet") for name in "01"], "others": [str(tmp_path / "2.parquet")]}


@pytest.fixture
def connection(files, tmp_path) -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.connect(files, tmp_path / "spill") as connection:
        yield connection


def test_all_files_of_a_name_are_one_table(connection):
    assert connection.sql("SELECT * FROM numbers ORDER BY n").fetchall() == [(1,), (2,), (3,)]
    assert connection.sql("SELECT max(n) FROM others").fetchall() == [(4,)]


def test_a_file_that_was_not_given_is_out_of_reach_beside_one_that_was(files, tmp_path):
    with engine.connect({"others": files["others"]}, tmp_path / "spill") as connection:
        assert connection.read_parquet(files["others"][0]).fetchall() == [(4,)]
        with pytest.raises(duckdb.PermissionException, match="disabled"):
            connection.read_parquet(files["numbers"][0])


@pytest.mark.parametrize("setting", ["memory_limit = '9GiB'", "enable_external_access = true", "allowed_paths = ['/']"])
def test_a_question_changes_no_setting(connection, setting):
    with pytest.raises(duckdb.Error, match=r"lock|disabled|[Cc]annot"):
        connection.execute(f"SET {setting}")


def test_what_needs_more_memory_is_spilled_and_answered(files, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "MEMORY", "64MiB")
    question = "SELECT n, md5(n::VARCHAR) AS text FROM range(1_500_000) t(n) ORDER BY text"  # 40 bytes each and more
    with engine.connect(files, tmp_path / "spill") as connection:
        answer = connection.execute(question).fetchmany(1)
        spilled = list(Path(tmp_path, "spill").iterdir())

    assert spilled
    assert answer == duckdb.sql(f"{question} LIMIT 1").fetchall()  # without a limit
