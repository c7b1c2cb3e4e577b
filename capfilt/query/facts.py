"""Columns of samples and candidates beyond the ledger: the policy's decision, lengths, script, domain."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from capfilt.config import Policy
from capfilt.ledger import CANDIDATES, SAMPLES
from capfilt.policy import cleaned, count_words, same_texts, select
from capfilt.query.columns import CANDIDATES as CANDIDATE_COLUMNS
from capfilt.query.columns import CONTROLS as CONTROL_COLUMNS
from capfilt.query.columns import SAMPLES as SAMPLE_COLUMNS
from capfilt.query.committed import READ, Part
from capfilt.query.languages import Detect
from capfilt.query.scripts import scripts
from capfilt.records import CONTROL

_IMAGE = ["width", "height", "format", "domain", "status"]
_BESIDE_HOST = r"^(?:[^?#]*@)?(?:www\.)?|[?#].*$|:\d*$"


def tables(parts: Sequence[Part], policy: Policy, detect: Detect | None) -> dict[str, pa.Table]:
    """Return the samples, the candidates and the controls of some parts, with the columns of COLUMNS.

    The decisions are those of policy.select, which sees every candidate of a sample at once.

    Args:
        parts: whole shards or units.
        policy: which candidates are kept.
        detect: guesses languages; without it there is no column language.
    """
    samples = pa.concat_tables([SAMPLES.empty_table().select(READ["samples"]), *(part.samples for part in parts)])
    own, controls = zip(*map(_split, parts), strict=True) if parts else ((), ())
    candidates = pa.concat_tables([CANDIDATES.empty_table(), *own])
    texts = cleaned(candidates["text"])
    selection = select(candidates, policy, texts)
    rows = _rows_of_samples(parts, own)
    kept = selection["kept"].to_numpy()
    itm = selection["itm"].to_numpy().astype(np.float32)  # NaN where there is none
    synthetic = pc.equal(selection["source"], "synthetic").to_numpy()
    samples = (
        samples.append_column("domain", domains(samples["url"].combine_chunks()))
        .append_column("texts", pa.array(np.bincount(rows, minlength=samples.num_rows)))
        .append_column("texts_kept", pa.array(np.bincount(rows[kept], minlength=samples.num_rows)))
        .append_column("own_itm", _best(itm[~synthetic], rows[~synthetic], samples.num_rows))
        .append_column("synthetic_itm", _best(itm[synthetic], rows[synthetic], samples.num_rows))
    )
    images = samples.select(_IMAGE).take(pa.array(rows))
    return {
        "samples": samples.select(list(SAMPLE_COLUMNS)),
        "candidates": _candidates(selection, texts, images, detect),
        "controls": pa.concat_tables([CANDIDATES.empty_table(), *controls]).select(list(CONTROL_COLUMNS)),
    }


def _split(part: Part) -> tuple[pa.Table, pa.Table]:
    """Return the candidates of a part, and its control texts."""
    if CONTROL not in part.commit.candidates:
        return part.candidates, CANDIDATES.empty_table()
    known = pc.equal(part.candidates["source"], CONTROL)
    return part.candidates.filter(pc.invert(known)), part.candidates.filter(known)


def _rows_of_samples(parts: Sequence[Part], candidates: Sequence[pa.Table]) -> NDArray[np.int64]:
    """Return for each candidate of some parts the row of its sample among the samples of all parts."""
    starts = np.cumsum([0, *(part.samples.num_rows for part in parts)])[:-1]
    places = (
        table["position"].to_numpy() - part.commit.lo + start
        for part, table, start in zip(parts, candidates, starts, strict=True)
    )
    return np.concatenate([np.zeros(0, np.int64), *places])


def _best(itm: NDArray[np.float32], rows: NDArray[np.int64], count: int) -> pa.Array:
    """Return the highest score of each of `count` samples, null where there is none."""
    best = np.full(count, -1, np.float32)
    np.fmax.at(best, rows, itm)
    return pa.array(best, mask=best < 0)


def _candidates(selection: pa.Table, texts: pa.Array, images: pa.Table, detect: Detect | None) -> pa.Table:
    """Return the candidates with columns on their texts and on the image of each."""
    facts = {"same": same_texts(texts), "words": count_words(texts)}
    facts |= {"characters": pc.utf8_length(texts), "script": scripts(texts)}
    if detect is not None:
        facts["language"] = detect(texts)
    facts |= {name: images[name] for name in _IMAGE}
    for name, values in facts.items():
        selection = selection.append_column(name, values)
    return selection.select([name for name in CANDIDATE_COLUMNS if name in selection.column_names])


def domains(urls: pa.Array) -> pa.Array:
    """Return the host of each URL, without www.: what follows the second slash. A regex for it takes much longer."""
    pieces = pc.split_pattern(urls, "/", max_splits=3)
    has_host = pc.and_(pc.greater_equal(pc.list_value_length(pieces), 3), pc.match_substring(urls, "://"))
    thirds = np.where(has_host.to_numpy(False), np.asarray(pieces.offsets)[:-1] + 2, 0)
    hosts = pc.utf8_lower(pieces.values.take(pa.array(thirds, mask=~has_host.to_numpy(False))))
    hosts = pc.replace_substring_regex(hosts, _BESIDE_HOST, "")
    return pc.if_else(pc.equal(hosts, ""), None, hosts)
