"""Sources share each batch by their weights to within one sample, and every part of it alike."""

from collections import Counter
from itertools import chain, islice
from pathlib import Path

import pytest
from pairs import open_set, sample, write_shard

from capfilt.errors import ConfigError
from capfilt.training.mixture import Mixture, deal


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Twelve clean, four human samples, and six shards of two for a source in parts."""
    root = tmp_path_factory.mktemp("mixture")
    write_shard(root / "clean", map(sample, range(12)))
    write_shard(root / "human", map(sample, range(4)))
    for shard in range(6):
        write_shard(root / "laion", map(sample, range(2)), f"{shard:05d}.tar")
    return root


def mixture(root: Path, places: int, *sources: tuple[str, float | None, int]) -> Mixture:
    given = [{"shards": [str(root / name)], "weight": weight, "parts": parts} for name, weight, parts in sources]
    return open_set(root, places, sources=given).mixture


def folders(root: Path, places: int, steps: int, *sources: tuple[str, float | None, int]) -> list[list[str]]:
    """Return the source of each place of each step."""
    given = [{"shards": [str(root / name)], "weight": weight, "parts": parts} for name, weight, parts in sources]
    data = open_set(root, places, sources=given)
    names = [Path(shard.url).parent.name for shard in data.catalogue.shards]
    lanes = [data.mixture.samples(place, 0) for place in range(places)]
    return [[names[at.shard] for at in row] for row in islice(zip(*lanes, strict=False), steps)]


class TestDeal:
    @pytest.mark.parametrize("places", [30, 64, 2880])
    @pytest.mark.parametrize("weights", [(1,), (0.5, 0.5), (0.8, 0.2), (3, 2, 1), (14, 10.3, 1.7, 0.9)])
    def test_each_pool_has_its_share_to_within_one_place(self, weights, places):
        dealt = deal(weights, places)
        assert len(dealt) == len({*dealt}) == places
        for pool, count in Counter(pool for pool, _ in dealt).items():
            assert abs(count - places * weights[pool] / sum(weights)) < 1
            assert sorted(lane for p, lane in dealt if p == pool) == list(range(count))

    def test_every_part_of_a_batch_has_the_mixture_of_the_whole(self):
        dealt = deal((0.75, 0.25), 64)
        for part in range(8):
            assert Counter(pool for pool, _ in dealt[8 * part : 8 * part + 8]) == {0: 6, 1: 2}

    def test_lanes_stand_in_order_so_that_neighbours_read_the_same_shards(self):
        for pool in range(2):
            lanes = [lane for p, lane in deal((0.7, 0.3), 40) if p == pool]
            assert lanes == sorted(lanes)

    def test_a_pool_without_a_place_is_refused_by_name(self):
        with pytest.raises(ConfigError, match=r"data\.sources\.1: its weight gives it 0\.40 of the 4 places"):
            deal((9, 1), 4)


def test_weights_hold_in_every_batch(root):
    for row in folders(root, 4, 20, ("clean", 1.0, 1), ("human", 3.0, 1)):
        assert Counter(row) == {"clean": 1, "human": 3}


def test_without_weights_each_source_has_its_share_of_an_epoch(root):
    rows = folders(root, 4, 12, ("clean", None, 1), ("human", None, 1))
    for epoch in range(3):
        assert Counter(chain(*rows[4 * epoch : 4 * epoch + 4])) == {"clean": 12, "human": 4}


def test_a_source_in_parts_gives_one_of_them_an_epoch_beside_the_others_whole(root):
    rows = folders(root, 4, 12, ("human", None, 1), ("laion", None, 3))  # 4 + 4 samples an epoch
    for epoch in range(6):
        assert Counter(chain(*rows[2 * epoch : 2 * epoch + 2])) == {"human": 4, "laion": 4}


def test_the_parts_of_a_source_follow_each_other(root):
    found = mixture(root, 4, ("laion", None, 3))
    drawn = [next(found.samples(place, step)).shard for step in range(6) for place in range(4)]
    assert [{*drawn[4 * epoch : 4 * epoch + 4]} for epoch in range(6)] == [{0, 3}, {1, 4}, {2, 5}] * 2


def test_sources_in_different_parts_each_keep_to_their_own_turn(root):
    found = mixture(root, 5, ("laion", None, 2), ("laion", None, 3))  # 6 + 4 samples an epoch
    drawn = [next(found.samples(place, step)).shard for step in range(16) for place in range(5)]
    for epoch in range(8):
        halves, thirds = (Counter(dict.fromkeys(range(epoch % parts, 6, parts), 2)) for parts in (2, 3))
        assert Counter(drawn[10 * epoch : 10 * epoch + 10]) == halves + thirds


def test_a_batch_with_more_places_than_samples_is_refused(root):
    with pytest.raises(ConfigError, match=r"schedule\.batch_size: 17, .* but there are 16 samples; lower it"):
        mixture(root, 17, ("clean", None, 1), ("human", None, 1))
    with pytest.raises(ConfigError, match=r"batch_size: 10, of which 5 come from a source, but there are 4 samples"):
        mixture(root, 10, ("clean", 1.0, 1), ("human", 1.0, 1))
