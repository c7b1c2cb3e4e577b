"""Every sample once an epoch, a step entered anywhere, and each lane from shard to shard: by arithmetic alone."""

import tracemalloc
from itertools import chain, groupby, islice

import pytest

from capfilt.training.order import DRAWS, SAMPLES, Place, Pool, chance

SAMPLES_OF = (10, 7, 13, 1, 9)  # 40 in all


def pool(lanes: int = 4, seed: int = 0, **changes: object) -> Pool:
    values = {"number": 0, "seed": seed, "samples": SAMPLES_OF, "epochs": [range(5)], "lanes": lanes, "block": 3}
    return Pool(**{**values, **changes})


def rows(some: Pool, start: int, stop: int) -> list[tuple[Place, ...]]:
    """Return the samples of all lanes, step by step."""
    return list(islice(zip(*(some.places(lane, start) for lane in range(some.lanes)), strict=False), stop - start))


def all_places(shards: tuple[int, ...] = tuple(range(5))) -> list[Place]:
    return [Place(shard, position) for shard in shards for position in range(SAMPLES_OF[shard])]


@pytest.mark.parametrize("lanes", [1, 3, 4, 7, 16, 39, 40])
def test_every_sample_comes_once_an_epoch_also_where_batches_lie_across_two(lanes):
    drawn = list(chain.from_iterable(rows(pool(lanes), 0, 5 * 40)))
    for epoch in range(5):
        assert sorted(drawn[40 * epoch : 40 * epoch + 40]) == all_places()


def test_each_epoch_has_another_order_and_none_is_that_of_the_files():
    drawn = list(chain.from_iterable(rows(pool(), 0, 30)))
    epochs = [drawn[40 * epoch : 40 * epoch + 40] for epoch in range(3)]
    assert len({tuple(epoch) for epoch in [*epochs, all_places()]}) == 4


def test_shards_change_places_from_epoch_to_epoch_and_so_do_the_samples_of_each():
    drawn = [place for (place,) in rows(pool(1), 0, 120)]
    epochs = [drawn[40 * epoch : 40 * epoch + 40] for epoch in range(3)]
    assert len({tuple(shard for shard, _ in groupby(epoch, key=lambda at: at.shard)) for epoch in epochs}) == 3
    for shard in (0, 1, 2, 4):
        assert len({tuple(at.position for at in epoch if at.shard == shard) for epoch in epochs}) == 3


@pytest.mark.parametrize("lanes", [3, 4, 7])
def test_a_step_is_entered_anywhere(lanes):
    whole = rows(pool(lanes), 0, 60)
    for start in range(60):
        assert rows(pool(lanes), start, 60) == whole[start:]


def test_a_far_step_is_found_at_once():
    far = 10**9
    assert rows(pool(), far, far + 20)[10:] == rows(pool(), far + 10, far + 20)


def test_seeds_and_pools_have_orders_of_their_own():
    found = [rows(pool(seed=seed, number=number), 0, 10) for seed, number in ((0, 0), (1, 0), (2**64 - 1, 0), (0, 1))]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])
    assert rows(pool(seed=1), 0, 10) == found[1]
    alone = [rows(pool(number=number, epochs=[[2]]), 0, 3) for number in range(2)]  # of one shard, only its samples
    assert alone[0] != alone[1]


def test_blocks_of_neighbours_stay_together_and_are_permuted_in_and_among_themselves():
    order = [place.position for place in islice(pool(1, samples=[12], epochs=[[0]]).places(0, 0), 12)]
    blocks = [[position // 3 for position in order[at : at + 3]] for at in range(0, 12, 3)]
    assert all(len({*block}) == 1 for block in blocks)
    assert [block[0] for block in blocks] != [0, 1, 2, 3]
    assert order != [3 * block[0] + i for block in blocks for i in range(3)]


def test_a_lane_goes_from_shard_to_shard_and_lanes_share_no_block_but_at_their_ends():
    """Four lanes cut an epoch three times: so many blocks are read twice at most, whatever their number."""
    samples = [50] * 8
    many = pool(4, samples=samples, epochs=[range(8)])
    read: list[tuple[int, int]] = []
    for lane in range(4):
        places = list(islice(many.places(lane, 0), 100))
        shards = [shard for shard, _ in groupby(places, key=lambda place: place.shard)]
        assert len(shards) == len({*shards}) <= 3
        read += [block for block, _ in groupby((place.shard, place.position // 3) for place in places)]
    blocks = sum(-(-count // 3) for count in samples)
    assert {*read} == {(shard, block) for shard in range(8) for block in range(17)}
    assert blocks <= len(read) <= blocks + 3


def test_parts_take_turns():
    parts = pool(3, epochs=[[0, 1], [2], [3, 4]])
    drawn = list(chain.from_iterable(rows(parts, 0, 40)))
    for shards, lo, hi in (((0, 1), 0, 17), ((2,), 17, 30), ((3, 4), 30, 40), ((0, 1), 40, 57), ((2,), 57, 70)):
        assert sorted(drawn[lo:hi]) == all_places(shards)
    for start in range(40):
        assert rows(parts, start, 40) == rows(parts, 0, 40)[start:]
    assert parts.smallest_epoch == 10


def test_a_shard_without_samples_is_passed_over():
    drawn = list(chain.from_iterable(rows(pool(2, samples=[0, 3, 0, 5], epochs=[range(4)]), 0, 4)))
    assert sorted(drawn) == [Place(1, i) for i in range(3)] + [Place(3, i) for i in range(5)]


def test_a_lane_holds_the_shards_of_its_stretch_and_not_those_of_the_epoch():
    """157 shards of 10,000, which alone would be 80,000 bytes."""
    many = pool(64, samples=[20] * 10_000, epochs=[range(10_000)])
    next(many.places(0, 0))
    tracemalloc.start()
    lanes = [many.places(lane, 3) for lane in range(10)]
    for lane in lanes:
        next(lane)
    held = tracemalloc.get_traced_memory()[0] / len(lanes)
    tracemalloc.stop()
    assert held < 40_000


def test_chance_follows_from_purpose_and_place():
    def draw(*place: int) -> float:
        return float(chance(*place).random())

    found = [draw(7, DRAWS, 1, 2), draw(7, DRAWS, 2, 1), draw(7, SAMPLES, 1, 2), draw(8, DRAWS, 1, 2)]
    found.append(draw(7, DRAWS, 1))
    assert len({*found}) == 5
    assert draw(7, DRAWS, 1, 2) == found[0]
    assert draw(7, DRAWS, 2**63, 2) != found[0]
