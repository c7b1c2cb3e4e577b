"""Propose for each source the threshold that lets in a target share of known mismatches, and show what it costs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from capfilt.calibrate.curves import Curve, Rate
from capfilt.calibrate.labels import Found, Label, match_labels
from capfilt.calibrate.measured import Scored, SourceCalibration
from capfilt.config import Policy
from capfilt.display import counted
from capfilt.errors import QueryError
from capfilt.policy import SOURCES, least_itm
from capfilt.query import OpenRun

PROPOSED = ("web", "synthetic")  # human texts are kept as they are


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration of a run's thresholds."""

    run: str
    extent: str  # which shards were looked at, for people
    error: float  # the target false-accept rate
    policy: Policy  # the one that was calibrated, with the proposed thresholds
    sources: list[SourceCalibration]
    warnings: list[str]

    def to_json(self) -> dict[str, object]:
        """Return all figures as plain values for json.dumps."""
        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return values | {"policy": self.policy.model_dump(mode="json")}


def calibrate(opened: OpenRun, error: float, labels: Sequence[Label] = ()) -> Calibration:
    """Measure what each threshold of P(match) lets in, keeps and loses.

    Args:
        opened: the run; the policy that it was opened with is calibrated.
        error: target false-accept rate, in (0, 1).
        labels: people's judgements of some of its texts.

    Raises:
        QueryError: error is out of range, nothing is committed, or the run has neither control pairs nor any of the
            labelled texts.
    """
    if not 0 < error < 1:
        raise QueryError(f"error is {error}; give a rate between 0 and 1, such as 0.05")
    if not opened.commits:
        raise QueryError(f"{opened.run.root}: {opened.nothing}, so nothing can be measured")
    found = match_labels(opened, labels) if labels else Found({}, [], [], [])
    in_force = least_itm(opened.policy)
    sources = [
        Scored(source, texts, controls, found.sources.get(source)).calibrate(in_force[source], error)
        for source, texts, controls in _curves(opened, in_force)
    ]
    if not any(source.controls for source in sources) and not found.sources:
        raise QueryError(f"{opened.run.root}: {_nothing_known(opened.run.config().controls.share)}, or give --labels")
    warnings = [warning for source in sources for warning in source.warnings]
    warnings += _left_out(found)
    policy = opened.policy.model_copy(update={"name": "calibrated", **thresholds(sources)})
    return Calibration(opened.run.root, opened.extent, error, policy, sources, warnings)


def thresholds(sources: Sequence[SourceCalibration]) -> dict[str, float]:
    """Return the proposed thresholds by their keys in a policy: {"web_itm": 0.62}."""
    return {f"{s.source}_itm": s.proposed.threshold for s in sources if s.proposed and s.source in PROPOSED}


def _nothing_known(share: float) -> str:
    """Return why nothing of a run can be measured, and what to do; share is its controls.share."""
    if not share:
        return (
            "has no control pairs (controls.share is 0) and no labelled text; "
            "bootstrap another run with controls.share: 0.02"
        )
    return (
        f"its samples gave no control pairs yet (controls.share is {share:g}), and it has no labelled text; "
        "finish the run, or bootstrap another one with a larger controls.share"
    )


def _left_out(found: Found) -> Iterator[str]:
    """Yield a warning for each reason why labels do not count."""
    if found.missing:
        yield f"{counted(len(found.missing), 'label')} of no scored text, such as {found.missing[0].key}"
    if found.ambiguous:
        first = found.ambiguous[0].key
        yield f"{counted(len(found.ambiguous), 'label')} with several samples that fit, such as {first}"
    if found.contradicting:
        first = found.contradicting[0].key
        yield f"{counted(len(found.contradicting), 'text')} with labels that contradict each other, such as {first}"


def _curves(opened: OpenRun, in_force: Mapping[str, float]) -> Iterator[tuple[str, Curve, Curve]]:
    """Yield each source with the curves of its texts and of the control texts of its kind."""
    for source in SOURCES:
        kind = "IS NOT NULL" if source == "synthetic" else "IS NULL"
        texts = Curve.of(_scores(opened.candidates.filter(f"source = '{source}'")), in_force[source])
        if texts.total:
            yield source, texts, Curve.of(_scores(opened.controls.filter(f"captioner {kind}")), in_force[source])


def _scores(rows: duckdb.DuckDBPyRelation) -> Iterator[NDArray[np.float32]]:
    for batch in rows.filter("itm IS NOT NULL").project("itm").to_arrow_reader():
        yield batch.column(0).to_numpy()


def _plain(value: object) -> object:
    """Return a value for json.dumps; a rate includes its interval."""
    if isinstance(value, Rate):
        return value.to_json()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
