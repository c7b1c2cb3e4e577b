from pathlib import Path

import pytest
from fakes import job_config
from hypothesis import given
from hypothesis import strategies as st

from capfilt.errors import ShardError
from capfilt.records import Held, Shard, Unit
from capfilt.units import check_failures, cover, cut_units, gaps, parse_name


def shard(samples: int) -> Shard:
    return Shard("00000", "in/00000.tar", 1, "d", samples)


def spans(units):
    return [(unit.lo, unit.hi) for unit in units]


def test_units_are_whole_batches_except_the_last(tmp_path):
    assert spans(cut_units(shard(21), job_config(tmp_path, batch_size=4, unit_size=7))) == [(0, 8), (8, 16), (16, 21)]


@pytest.mark.parametrize(("kind", "samples"), [("cpu", 64), ("cuda", 4096)])
def test_units_suit_the_pace_of_a_device(tmp_path, kind, samples):
    config = job_config(tmp_path, batch_size=8, unit_size=0, device={"kind": kind})
    assert spans(cut_units(shard(5000), config))[0] == (0, samples)


def test_a_shard_without_samples_has_one_unit_until_that_is_committed(tmp_path):
    config = job_config(tmp_path)
    (unit,) = cut_units(shard(0), config)

    assert (unit.lo, unit.hi) == (0, 0)
    assert cut_units(shard(0), config, gaps(shard(0), [unit.name])) == []


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20), st.data())
def test_units_fill_exactly_what_is_not_committed_however_that_was_cut(samples, batch, before, after, data):
    first = cut_units(shard(samples), job_config(Path("job"), batch_size=batch, unit_size=before))
    committed = data.draw(st.sets(st.sampled_from(first)))

    config = job_config(Path("job"), batch_size=batch, unit_size=after)
    rest = cut_units(shard(samples), config, gaps(shard(samples), [unit.name for unit in committed]))

    positions = sorted(n for unit in [*committed, *rest] for n in range(unit.lo, unit.hi))
    assert positions == list(range(samples))
    assert all(unit.lo % batch == 0 for unit in rest)


@given(st.integers(1, 15), st.integers(1, 12), st.data())
def test_whatever_is_committed_the_rest_makes_a_whole_of_it(batches, size, data):
    """Forced drivers with other sizes of units may leave such as overlap without one lying in the other."""
    samples = 4 * batches
    batch = st.integers(0, batches - 1).flatmap(lambda lo: st.tuples(st.just(lo), st.integers(lo + 1, batches)))
    committed = [Unit(shard(samples), 4 * lo, 4 * hi) for lo, hi in data.draw(st.sets(batch, max_size=5))]
    config = job_config(Path("job"), batch_size=4, unit_size=size)

    rest = cut_units(shard(samples), config, gaps(shard(samples), [unit.name for unit in committed]))

    chosen = spans(cover([*committed, *rest], samples))
    assert [lo for lo, _ in chosen] == [0, *(hi for _, hi in chosen[:-1])]
    assert chosen[-1][1] == samples
    assert gaps(shard(samples), [unit.name for unit in [*committed, *rest]]) == []


@given(st.integers(0, 60), st.integers(1, 20), st.data())
def test_units_that_were_committed_whole_and_in_pieces_are_taken_once(samples, size, data):
    whole = cut_units(shard(samples), job_config(Path("job"), batch_size=1, unit_size=size))
    split = data.draw(st.sets(st.sampled_from(whole)))
    pieces = {Unit(unit.shard, n, n + 1) for unit in split for n in range(unit.lo, unit.hi)}
    late = data.draw(st.sets(st.sampled_from(sorted(split, key=lambda unit: unit.lo)))) if split else set()

    chosen = cover([*(set(whole) - split), *pieces, *late], samples)

    assert [n for unit in chosen for n in range(unit.lo, unit.hi)] == list(range(samples))


def test_units_that_leave_a_gap_are_all_returned_so_that_the_gap_is_reported():
    units = [Unit(shard(9), 0, 3), Unit(shard(9), 6, 9)]

    assert cover(units, 9) == units


def test_of_committed_units_that_overlap_and_fit_nowhere_the_longer_counts(tmp_path):
    committed = ["00000000-00000004", "00000000-00000012", "00000008-00000020"]

    assert spans(cut_units(shard(21), job_config(tmp_path), gaps(shard(21), committed))) == [(12, 20), (20, 21)]


def test_a_unit_holds_the_held_samples_that_lie_in_it(tmp_path):
    held = [Held(3, "hangs"), Held(8, "hangs")]

    units = cut_units(shard(21), job_config(tmp_path), gaps(shard(21), ["00000016-00000021"]), held)

    assert [(unit.lo, [one.position for one in unit.held]) for unit in units] == [(0, [3]), (8, [8])]


def test_a_name_gives_back_its_positions(tmp_path):
    (unit,) = cut_units(shard(3), job_config(tmp_path))

    assert parse_name(unit.name) == (0, 3)


def test_failures_at_the_share_pass_and_over_it_do_not(tmp_path):
    config = job_config(tmp_path, max_failed_share=0.5)

    check_failures(shard(4), {"ok": 2, "truncated": 2}, config)
    with pytest.raises(ShardError, match=r"in/00000\.tar: 3 of 4 samples failed \(1 too_large, 2 truncated\)"):
        check_failures(shard(4), {"ok": 1, "truncated": 2, "too_large": 1}, config)


def test_a_shard_that_is_given_up_tells_of_the_first_samples_that_failed(tmp_path):
    failed = ((f"key{n}", f"is broken\nin way {n}") for n in range(1000))

    with pytest.raises(ShardError) as caught:
        check_failures(shard(4), {"undecodable": 4}, job_config(tmp_path), failed)

    told = "= 0.5; key0: is broken↵in way 0; key1: is broken↵in way 1; key2: is broken↵in way 2; look at the shard"
    assert told in str(caught.value)
    assert next(failed)[0] == "key3"
