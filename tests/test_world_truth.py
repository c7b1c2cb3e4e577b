import json
from dataclasses import asdict

import pytest
from ledgers import commit, new_run, record, synthetic, web

from capfilt.config import Policy
from capfilt.errors import CapfiltError
from capfilt.ledger import fold
from capfilt.records import Shard
from capfilt.world.captions import true_captions
from capfilt.world.scenes import scene_at, stream
from capfilt.world.truth import Verdicts, judge

SHARD = Shard("00000", "in/00000.tar", 1000, "d16e57", 3)


@pytest.mark.parametrize(
    ("verdicts", "shares"),
    [
        (Verdicts(6, 2, 1, 1), (0.8, 0.75, 0.5, 6 / 7)),
        (Verdicts(0, 0, 0, 4), (0.0, 0.0, 1.0, 0.0)),
        (Verdicts(), (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_shares_are_of_what_they_say(verdicts, shares):
    assert (verdicts.true_share, verdicts.recall, verdicts.rejection, verdicts.precision) == pytest.approx(shares)
    assert (verdicts + verdicts).texts == 2 * verdicts.texts


@pytest.fixture
def run(tmp_path):
    """A ledger of three scenes, whose samples carry the metadata that is given."""

    def write(metadata: list[str], candidates: list) -> object:
        run = new_run(tmp_path, [SHARD])
        records = [record(position, metadata=text) for position, text in enumerate(metadata)]
        fold(run, SHARD, commit(run, SHARD, [0, 3], records, candidates))
        return run

    return write


def test_every_text_is_held_against_its_own_scene(run):
    scenes = [scene_at(0, "t", index) for index in range(3)]
    true = [true_captions(scene, stream(0, "t", index, "x"), 2) for index, scene in enumerate(scenes)]
    candidates = [
        web(0, 0.9, true[0][0]),
        synthetic(0, 0.2, true[0][1]),
        web(1, 0.9, "buy now"),
        synthetic(1, 0.1, "a dog"),
        synthetic(2, 0.5, true[2][0].upper()),
    ]
    metadata = [json.dumps({"scene": asdict(scene)}) for scene in scenes]

    verdicts = judge(run(metadata, candidates), [SHARD], Policy())

    assert verdicts == {
        "web": Verdicts(true_kept=1, wrong_kept=1),
        "synthetic": Verdicts(true_kept=1, true_dropped=1, wrong_dropped=1),
    }


def test_a_sample_of_another_world_is_refused(run):
    with pytest.raises(CapfiltError, match="no scene in the metadata"):
        judge(run(['{"caption": "x"}'] * 3, [web(0)]), [SHARD], Policy())
