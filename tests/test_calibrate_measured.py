"""What is measured of a source, against the same counted one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capfilt.calibrate.curves import STEPS, Curve, enough
from capfilt.calibrate.labels import Labelled
from capfilt.calibrate.measured import Scored

SCORES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40)
THRESHOLDS = (np.arange(STEPS + 1) / STEPS).astype(np.float32)


def curve(scores: list[float]) -> Curve:
    return Curve.of([np.array(scores, np.float32)])


@given(SCORES, SCORES, st.sampled_from([0.01, 0.05, 0.2, 0.5]))
def test_the_proposal_is_the_least_threshold_with_no_more_false_accepts(texts, controls, error):
    found = Scored("web", curve(texts), curve(controls), None).calibrate(0.5, error)

    accepted = (np.array(controls, np.float32)[:, None] >= THRESHOLDS).mean(0)  # by threshold
    fitting = np.flatnonzero(accepted <= error)
    assert (found.proposed and round(found.proposed.threshold * STEPS)) == (fitting[0] if len(fitting) else None)
    if found.proposed:
        assert found.least is not None
        assert found.least <= found.proposed.threshold <= (1 if found.most is None else found.most)
    assert bool(found.warnings) == (found.proposed is None or len(controls) < enough(error))
    assert [point.kept.part for point in found.points] == [
        sum(np.float32(text) >= np.float32(point.threshold) for text in texts) for point in found.points
    ]


@given(SCORES.filter(lambda scores: min(scores) < 1), SCORES, st.integers(1, 3))
def test_no_more_mismatches_are_there_than_the_estimate_allows(controls, matches, times):
    """Whatever matching texts score: of texts among which are mismatches that score as the controls do."""
    texts = controls * times + matches

    found = Scored("web", curve(texts), curve(controls), None).calibrate(0.5, 0.05)

    assert found.noise_at_most is None or found.noise_at_most >= times * len(controls) / len(texts) - 1e-9


def test_labels_give_precision_and_recall_at_a_threshold():
    judged = Labelled(true=curve([0.4, 0.6, 0.8, 0.9]), false=curve([0.1, 0.6]))

    point = Scored("web", curve([0.5]), curve([]), judged).point(STEPS // 2)

    assert (point.precision.part, point.precision.whole) == (3, 4)
    assert (point.recall.part, point.recall.whole) == (3, 4)
    assert point.wrong_at_most is None  # without controls


@pytest.mark.parametrize(("source", "rejected"), [("human", 2), ("web", None), ("synthetic", None)])
def test_only_of_peoples_texts_a_rejection_is_known_to_be_false(source, rejected):
    point = Scored(source, curve([0.1, 0.4, 0.6]), curve([0.2]), None).point(STEPS // 2)

    assert (point.false_rejects and point.false_rejects.part) == rejected
