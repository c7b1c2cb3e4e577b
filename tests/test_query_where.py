from pathlib import Path

import duckdb
import pytest
from ledgers import SHARD, complete, new_run, record, synthetic, web

import capfilt
from capfilt.errors import QueryError
from capfilt.query import filtered
from capfilt.query.where import query_errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("where")


@pytest.fixture(scope="module")
def found(folder):
    run = new_run(folder)
    complete(run, SHARD, [record(n) for n in range(4)], [web(0, 0.9), synthetic(0, 0.1), web(1, 0.4, text="it's")])
    with capfilt.open_run(run.root) as opened:
        yield opened


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (None, 3),
        ("source = 'web'", 2),
        ("source = 'web' AND itm < 0.5", 1),
        ("text LIKE '%''s'", 1),
        ("kept", 1),
        ("itm > (SELECT avg(itm) FROM candidates)", 1),
        ("false", 0),
    ],
)
def test_a_condition_picks_rows(found, where, count):
    assert len(filtered(found.candidates, where).fetchall()) == count


@pytest.mark.parametrize(
    "where",
    [
        "skore > 1",
        "itm >",
        "1) OR (1",
        "true); DROP VIEW candidates; --",
        "true ORDER BY itm",
        "count(*) > 1",
        "itm > (SELECT count(*) FROM read_csv('/etc/passwd'))",
        "itm > (SELECT count(*) FROM '/etc/passwd')",
        "getenv('HOME') = ''",
        "",
        "text",
        "itm > 'a'",
    ],
)
def test_what_is_no_condition_is_told_in_one_line_with_the_columns(found, where):
    with pytest.raises(QueryError) as told_error, query_errors(where, found.candidates.columns):
        filtered(found.candidates, where).fetchall()

    assert str(told_error.value).startswith(f"where {where!r}: ")
    assert "the columns are shard, position, key, source" in str(told_error.value)
    assert "\n" not in str(told_error.value)
    assert len(found.candidates.fetchall()) == 3


def test_no_file_is_read_by_a_condition(found, folder):
    (folder / "secret.txt").write_text("a secret")

    with pytest.raises(QueryError) as told_error:
        filtered(found.candidates, f"text = (SELECT content FROM read_text('{folder}/secret.txt'))")

    assert "a secret" not in str(told_error.value)


def test_without_a_condition_an_error_of_the_engine_stays_what_it_is(found):
    with pytest.raises(duckdb.ConversionException), query_errors(None, found.candidates.columns):
        found.sql("SELECT 'a'::int").fetchall()
