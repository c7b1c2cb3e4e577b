import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import SHARD, commit, complete, edit, new_run, record, synthetic, web

import capfilt
from capfilt.config import Policy
from capfilt.errors import ConfigError, QueryError, RunError
from capfilt.ledger import fold, read_candidates
from capfilt.policy import select
from capfilt.query import COLUMNS, opened
from capfilt.query.engine import connect

OTHER = replace(SHARD, id="00001", url="in/00001.tar", samples=2)
WORKED = replace(SHARD, id="00002", url="in/00002.tar")


def filled_run(folder):
    run = new_run(folder, [SHARD, OTHER, WORKED])
    records = [record(0), record(1, text_status="missing"), record(2, status="too_large", error="9 MB"), record(3)]
    complete(run, SHARD, records, [web(0, 0.9), synthetic(0, 0.1), synthetic(1, 0.6), web(3, 0.2), synthetic(3, 0.3)])
    complete(run, OTHER, [record(0), record(1)], [web(0, 0.7, text=""), synthetic(0, 0.8)])
    units = commit(run, WORKED, [0, 2, 4], [record(position) for position in range(4)], [web(0, 1.0), web(3, 0.4)])
    return run, units


@pytest.fixture
def run(tmp_path):
    return filled_run(tmp_path)[0]


def test_the_candidates_carry_the_policys_decision(run):
    with capfilt.open_run(run.root) as found:
        rows = found.candidates.project("shard, position, source, kept, reason").fetchall()

    assert rows == [
        ("00000", 0, "web", True, None),
        ("00000", 0, "synthetic", False, "low_itm"),
        ("00000", 1, "synthetic", True, None),
        ("00000", 3, "web", False, "low_itm"),
        ("00000", 3, "synthetic", False, "low_itm"),
        ("00001", 0, "web", False, "too_short"),
        ("00001", 0, "synthetic", True, None),
    ]


CANDIDATES = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["web", "synthetic"]),
        st.sampled_from([None, 0.0, 0.25, 0.5, 0.75, 1.0]),
        st.sampled_from(["a dog", "A  dog", "", "<b>x</b> &amp; y", "собака", "one two three"]),
    ),
    max_size=12,
)


@settings(max_examples=20)
@given(
    st.lists(CANDIDATES, min_size=1, max_size=3),
    st.sampled_from(["both", "best", "web_else_synthetic", "weighted", "top_k"]),
)
def test_every_decision_is_that_of_select_on_the_shard_alone(tmp_path_factory, ledgers, mix):
    """Shards are judged together here, and one by one in an export: both must come to the same."""
    shards = [replace(SHARD, id=f"{n:05d}", url=f"in/{n:05d}.tar") for n in range(len(ledgers))]
    run = new_run(tmp_path_factory.mktemp("run"), shards)
    policy = Policy(mix=mix, min_words=2)
    for shard, rows in zip(shards, ledgers, strict=True):
        ordered = sorted(enumerate(rows), key=lambda row: row[1][0])
        texts = [
            web(position, itm, text) if source == "web" else synthetic(position, itm, text, index)
            for index, (position, source, itm, text) in ordered
        ]
        complete(run, shard, [record(position) for position in range(4)], texts)

    with capfilt.open_run(run.root, policy) as found:
        decisions = found.candidates.project("text, kept, reason").to_arrow_table()

    alone = pa.concat_tables(select(read_candidates(run, shard), policy) for shard in shards)
    assert decisions.to_pylist() == alone.select(["text", "kept", "reason"]).to_pylist()


@pytest.mark.parametrize("kind", [str, Path])
def test_a_policy_is_also_given_by_the_path_of_its_file(run, tmp_path, kind):
    (tmp_path / "strict.yaml").write_text("web_itm: 0.8")

    with capfilt.open_run(run.root, kind(tmp_path / "strict.yaml")) as found:
        assert found.policy == Policy(web_itm=0.8)
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read"):
        capfilt.open_run(run.root, kind(tmp_path / "gone.yaml"))


def test_a_run_is_also_given_by_a_path_that_is_no_string(run):
    with capfilt.open_run(Path(run.root)) as found:
        assert found.run.root == run.root


def test_a_sample_knows_how_many_of_its_texts_are_kept(run):
    with capfilt.open_run(run.root) as found:
        rows = found.samples.project("shard, position, status, domain, texts, texts_kept").fetchall()

    assert rows == [
        ("00000", 0, "ok", "example.org", 2, 1),
        ("00000", 1, "ok", "example.org", 1, 1),
        ("00000", 2, "too_large", "example.org", 0, 0),
        ("00000", 3, "ok", "example.org", 2, 0),
        ("00001", 0, "ok", "example.org", 2, 1),
        ("00001", 1, "ok", "example.org", 0, 0),
    ]


def test_a_sample_knows_the_best_score_of_its_own_texts_and_of_its_captions(tmp_path):
    run = new_run(tmp_path)
    texts = [web(0, 0.0), synthetic(0, 0.25), synthetic(0, 0.75, index=1), synthetic(0, 0.5, index=2)]
    texts += [web(1, None), synthetic(1, None), synthetic(1, 0.0, index=1), web(2, 1.0), synthetic(2, None)]
    complete(run, SHARD, [record(n) for n in range(4)], texts)

    with capfilt.open_run(run.root) as found:
        scores = found.samples.project("own_itm, synthetic_itm").fetchall()

    assert scores == [(0.0, 0.75), (None, 0.0), (1.0, None), (None, None)]


def test_a_failed_sample_is_an_outcome_without_a_text(run):
    with capfilt.open_run(run.root) as found:
        failed = found.outcomes.filter("status <> 'ok'").project("shard, position, key, source, text, kept, status")

        assert failed.fetchall() == [("00000", 2, "key2", None, None, None, "too_large")]
        assert found.outcomes.aggregate("count(*), count(source)").fetchall() == [(8, 7)]


def test_every_column_is_documented_and_every_documented_column_is_there(run):
    with capfilt.open_run(run.root, languages=True) as found:
        columns = {name: getattr(found, name).columns for name in COLUMNS}

    assert columns == {name: list(documented) for name, documented in COLUMNS.items()}


def test_committed_units_count_when_they_are_asked_for(run):
    with capfilt.open_run(run.root, unfinished=True) as found:
        assert found.figures["shards"] == "2 of 3 complete, and what is committed of 1 in work"
        assert found.figures["samples"] == "10"
        rows = found.samples.filter("shard = '00002'").project("position, texts, texts_kept").fetchall()

    assert rows == [(0, 1, 1), (1, 0, 0), (2, 0, 0), (3, 1, 0)]


def test_tables_without_a_record_do_not_count(run):
    Path(run.ledger, "00002", "00000002-00000004.json").unlink()
    Path(run.ledger, "00001.json").unlink()

    with capfilt.open_run(run.root, unfinished=True) as found:
        assert found.samples.project("shard").distinct().order("shard").fetchall() == [("00000",), ("00002",)]
        assert found.samples.filter("shard = '00002'").project("position").fetchall() == [(0,), (1,)]


def test_a_file_that_was_not_committed_is_an_error(run):
    shutil.copy(f"{run.ledger}/00001.candidates.parquet", f"{run.ledger}/00000.candidates.parquet")

    with pytest.raises(RunError, match=r"00000\.candidates\.parquet: is not the file that was committed"):
        capfilt.open_run(run.root)


def test_a_record_of_another_run_is_an_error(run):
    edit(f"{run.ledger}/00001.json", models="000000000000")

    with pytest.raises(RunError, match=r"00001\.json: belongs to another run or input"):
        capfilt.open_run(run.root)


def test_a_shard_of_no_plan_does_not_count(run):
    for path in Path(run.ledger).glob("00001.*"):
        shutil.copy(path, path.with_name(path.name.replace("00001", "99999")))

    with capfilt.open_run(run.root) as found:
        assert len(found.samples.fetchall()) == 6


@pytest.mark.parametrize("share", [1.0, None])
def test_a_run_of_nothing_complete_has_empty_relations(tmp_path, share):
    with capfilt.open_run(new_run(tmp_path).root, share=share) as found:
        assert found.samples.fetchall() == found.candidates.fetchall() == found.outcomes.fetchall() == []
        assert found.share == 1.0


def test_of_a_run_of_nothing_complete_it_is_told_whether_units_are(tmp_path):
    run = new_run(tmp_path / "my runs")

    with capfilt.open_run(run.root) as found:
        nothing = f"no shard is complete, nor any unit of one; capfilt status '{run.root}' tells why"
        assert found.nothing == nothing
        commit(run, SHARD, [0, 2], [record(0), record(1)], [web(0)])
        assert found.nothing == (
            f"no shard is complete, and some are in work; capfilt stats '{run.root}' --unfinished counts their units"
        )
        Path(run.ledger, "00000", "00000000-00000002.json").unlink()
        assert found.nothing == nothing  # of tables without a record


def test_control_texts_are_not_counted_among_the_candidates(tmp_path):
    run = new_run(tmp_path)
    complete(run, SHARD, [record(n) for n in range(4)], [web(0), web(0, 0.0, "of another")._replace(source="control")])

    with capfilt.open_run(run.root) as found:
        assert found.figures["candidates"] == "1"
        assert (len(found.candidates), len(found.controls)) == (1, 1)


def test_many_batches_are_one_relation(run, monkeypatch):
    monkeypatch.setattr(opened, "SAMPLES_PER_FILE", 1)

    with capfilt.open_run(run.root) as found:
        assert len(list(Path(found._scratch.name).glob("*.candidates.parquet"))) == 2
        assert len(found.candidates.fetchall()) == 7


def test_a_share_of_the_shards_is_the_same_each_time_and_part_of_a_larger_one(tmp_path):
    shards = [replace(SHARD, id=f"{n:05d}", url=f"in/{n:05d}.tar", samples=0) for n in range(10)]
    run = new_run(tmp_path, shards)
    for shard in shards:
        fold(run, shard, [])

    def drawn(share):
        with capfilt.open_run(run.root, share=share) as found:
            return {commit.shard for commit in found.commits}

    assert len(drawn(0.01)) == 1
    assert drawn(0.2) == drawn(0.2)
    assert len(drawn(0.2)) == 2
    assert drawn(0.2) < drawn(0.5)
    assert len(drawn(1.0)) == 10


def test_of_a_large_run_as_many_shards_are_looked_at_as_are_quick_where_no_share_is_asked_for(tmp_path, monkeypatch):
    shards = [replace(SHARD, id=f"{n:05d}", url=f"in/{n:05d}.tar", samples=2) for n in range(10)]
    run = new_run(tmp_path, shards)
    for shard in shards:
        fold(run, shard, commit(run, shard, [0, 2], [record(0), record(1)], [web(0)]))

    def looked_at(share):
        with capfilt.open_run(run.root, share=share) as found:
            return found.share, len(found.commits), found.extent

    every = (1.0, 10, "10 of 10 shards complete")
    assert looked_at(None) == looked_at(0.99) == every  # at least as many as were asked for
    monkeypatch.setattr(opened, "QUICK_SAMPLES", 5)
    assert looked_at(None) == (0.3, 3, "3 of 10 shards, drawn by their ids")
    assert looked_at(1.0) == every


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1])
def test_a_share_is_more_than_none_and_at_most_all(run, share):
    with pytest.raises(QueryError, match=r"give one in \(0, 1\]"):
        capfilt.open_run(run.root, share=share)


def test_a_run_in_an_object_store_is_read_as_a_local_one(run):
    store = fsspec.filesystem("memory")
    store.put(run.root, "/stats-run", recursive=True)
    try:
        with capfilt.open_run("memory://stats-run") as far, capfilt.open_run(run.root) as near:
            assert far.candidates.fetchall() == near.candidates.fetchall()
    finally:
        store.rm("/stats-run", recursive=True)


def test_the_scratch_folder_goes_when_the_run_is_closed(run):
    with capfilt.open_run(run.root) as found:
        folder = Path(found._scratch.name)
        assert folder.is_dir()

    assert not folder.exists()


def test_what_was_open_is_closed_when_opening_fails(run, tmp_path, monkeypatch):
    connections = []
    monkeypatch.setattr(opened, "connect", lambda *given: connections.append(connect(*given)) or connections[0])
    monkeypatch.setattr(opened, "_OUTCOMES", "SELECT * FROM nowhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()

    with pytest.raises(duckdb.CatalogException, match="nowhere"):
        capfilt.open_run(run.root)

    assert list((tmp_path / "scratch").iterdir()) == []
    with pytest.raises(duckdb.ConnectionException, match="closed"):
        connections[0].execute("SELECT 1")


def test_pandas_and_arrow_come_on_demand(run):
    with capfilt.open_run(run.root) as found:
        assert [round(itm, 2) for itm in found.candidates.df()["itm"].tolist()] == [0.9, 0.1, 0.6, 0.2, 0.3, 0.7, 0.8]
        assert found.samples.to_arrow_table().num_rows == 6
        assert found.sql("SELECT source, count(*) FROM candidates GROUP BY source ORDER BY source").fetchall() == [
            ("synthetic", 4),
            ("web", 3),
        ]


def test_it_shows_what_it_is(run):
    with capfilt.open_run(run.root) as found:
        told = f"run: {run.root}, policy: default, shards: 2 of 3 complete, samples: 6, candidates: 7"
        assert repr(found) == f"OpenRun({told})"
        assert "<tr><th>candidates</th><td>7</td></tr>" in found._repr_html_()


def test_a_name_with_markup_is_shown_as_text(tmp_path):
    run = new_run(tmp_path / "<script>")

    with capfilt.open_run(run.root) as found:
        assert "<script>" not in found._repr_html_()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM read_text('{file}')",
        "COPY (SELECT 1) TO '{file}.out'",
        "ATTACH '{file}.db'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "LOAD '{file}'",
    ],
)
def test_a_query_reaches_no_other_file(run, tmp_path, query):
    Path(tmp_path, "secret.csv").write_text("a\n1\n")
    before = sorted(tmp_path.iterdir())

    with capfilt.open_run(run.root) as found, pytest.raises(Exception, match=r"disabled|locked|cannot|not exist|Can"):
        found.sql(query.format(file=tmp_path / "secret.csv")).fetchall()

    assert sorted(tmp_path.iterdir()) == before


def test_a_query_sees_no_variable_of_the_caller(run):
    mine = pa.table({"a": [1]})

    with capfilt.open_run(run.root) as found:
        with pytest.raises(Exception, match="mine does not exist"):
            found.sql("SELECT * FROM mine")
        found.connection.register("mine", mine)
        assert found.sql("SELECT * FROM mine").fetchall() == [(1,)]


def test_opening_changes_no_file_of_the_run(run):
    before = {path: path.read_bytes() for path in Path(run.root).rglob("*") if path.is_file()}

    capfilt.open_run(run.root, unfinished=True).close()

    assert {path: path.read_bytes() for path in Path(run.root).rglob("*") if path.is_file()} == before


def test_nothing_but_answers_goes_to_the_standard_output_of_a_short_program(run):
    """DuckDB shows how far a long query is where it takes a program for a person at a prompt, as it does python -c."""
    code = "import sys, capfilt; print(capfilt.open_run(sys.argv[1]).sql(sys.argv[2]).fetchall())"

    query = "SELECT current_setting('enable_progress_bar')"
    done = subprocess.run([sys.executable, "-c", code, run.root, query], capture_output=True, text=True, check=True)

    assert done.stdout == "[(False,)]\n"
