"""A table holds all that its records hold."""

import pytest
from ledgers import record, synthetic, web

from capfilt.ledger.schemas import CANDIDATES, SAMPLES, candidates_table, samples_table
from capfilt.records import Candidate, SampleRecord

RECORDS = [record(0, metadata='{"a": "é"}'), record(1, width=None, height=None, status="missing", error="no file")]


@pytest.mark.parametrize(("schema", "kind"), [(SAMPLES, SampleRecord), (CANDIDATES, Candidate)])
def test_every_field_of_a_record_has_a_column_behind_its_shard(schema, kind):
    assert schema.names[0] == "shard"
    assert schema.names[1:] == list(kind._fields)  # in their order, by which rows become columns


@pytest.mark.parametrize(
    ("make", "schema", "rows"),
    [(samples_table, SAMPLES, RECORDS), (candidates_table, CANDIDATES, [web(0), synthetic(0, None, seed=2**63 - 1)])],
)
def test_rows_come_back_as_they_were(make, schema, rows):
    table = make("00042", rows)

    assert table.schema.equals(schema)
    assert table.to_pylist() == [{"shard": "00042", **row._asdict()} for row in rows]
    assert make("00042", []).schema.equals(schema)  # not of null type, for want of values
