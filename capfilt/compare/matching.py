"""Match the samples and texts of two runs."""

import duckdb

_PAIRS = """
    CREATE TEMP TABLE pairs AS
    WITH a AS (
        SELECT *, row_number() OVER (PARTITION BY image_sha256 ORDER BY shard, position) AS copy
        FROM samples_a WHERE image_sha256 <> ''
    ), b AS (
        SELECT *, row_number() OVER (PARTITION BY image_sha256 ORDER BY shard, position) AS copy
        FROM samples_b WHERE image_sha256 <> ''
    )
    SELECT a.shard AS shard_a, a.position AS position_a, a.status AS status_a, a.texts_kept AS kept_a,
        b.shard AS shard_b, b.position AS position_b, b.status AS status_b, b.texts_kept AS kept_b
    FROM a FULL JOIN b USING (image_sha256, copy)
"""

_TEXTS = """
    CREATE TEMP TABLE texts AS
    WITH matched AS (SELECT * FROM pairs WHERE shard_a IS NOT NULL AND shard_b IS NOT NULL),
    a AS (
        SELECT matched.*, key, source, caption_index, text, kept, reason, itm, itc
        FROM candidates_a JOIN matched ON shard = shard_a AND position = position_a
    ), b AS (
        SELECT matched.*, key, source, caption_index, text, kept, reason, itm, itc
        FROM candidates_b JOIN matched ON shard = shard_b AND position = position_b
    )
    SELECT shard_a, position_a, shard_b, position_b, source, caption_index,
        a.text IS NOT NULL AS in_a, b.text IS NOT NULL AS in_b, a.text <> b.text AS changed,
        a.kept AS kept_a, b.kept AS kept_b, a.itm AS itm_a, b.itm AS itm_b, a.itc AS itc_a, b.itc AS itc_b,
        a.key AS key_a, b.key AS key_b, a.reason AS reason_a, b.reason AS reason_b,
        CASE WHEN a.kept <> b.kept THEN a.text END AS text_a, CASE WHEN a.kept <> b.kept THEN b.text END AS text_b
    FROM a FULL JOIN b USING (shard_a, position_a, shard_b, position_b, source, caption_index)
"""


def match(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables `pairs` and `texts` from samples_a, candidates_a, samples_b and candidates_b.

    Samples pair up by the hash of their image alone, since keys and shards may differ. The first copy of an image in
    one run pairs up with the first copy in the other, and so on. A sample without a partner is a row too, with nulls on
    the other side, as is such a text of a paired sample. Texts are spelt out only where the decisions differ.
    """
    connection.execute(_PAIRS)
    connection.execute(_TEXTS)
