"""A unit that keeps failing is narrowed down to the samples at fault, and to no other."""

import random
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from capfilt.records import Held, Shard, Unit
from workers.attempts import Attempts
from workers.faults import Fault, Kind, overdue
from workers.isolation import Case, Isolation, live, split

BATCH = 8
SHARD = Shard("0", "0.tar", 0, "", 1000)
BAD = Fault(Kind.SAMPLE, "pid 7 is gone", "ends its worker")


class Job:
    """Does units of a shard with bad samples, which fail whatever they are tried in, and notes what it committed."""

    def __init__(self, unit: Unit, bad: set[int], most: int = 16, tries: int = 2, batch: int = BATCH) -> None:
        self.attempts = Attempts([unit], tries, strikes=10, isolation=Isolation(batch, tries, most))
        self.bad, self.tries, self.committed, self.failures = bad, tries, [], 0
        self.alone: Counter[int] = Counter()  # failures of a sample with no other

    def run(self, accidents: random.Random | None = None) -> list[Unit]:
        """Do what there is to do; each of some accidents makes a unit fail that can be done.

        None of them is the last try of a sample alone, after which it would rightly be set aside.
        """
        left = 12 if accidents else 0
        while case := self.attempts.take("a", idle=True, alternative=False):
            alone = live(case.unit) if case.unit.trial and len(live(case.unit)) == 1 else []
            accident = left > 0 and accidents is not None and accidents.random() < 0.2
            accident = accident and all(self.alone[position] < self.tries - 1 for position in alone)
            left -= accident
            if accident or self.bad & set(live(case.unit)):
                self.failures += 1
                self.alone.update(alone)
                self.attempts.fail(case, BAD, "a")
            else:
                self.attempts.succeed(case)
                self.committed += [] if case.unit.trial else [case.unit]
        return sorted(self.committed, key=lambda unit: unit.lo)


def positions(units: list[Unit]) -> list[int]:
    return [position for unit in units for position in range(unit.lo, unit.hi)]


def held(units: list[Unit]) -> set[int]:
    return {one.position for unit in units for one in unit.held}


@given(
    batch=st.sampled_from([BATCH, 20]),  # the samples of one are tried one by one, those of the other in groups first
    first=st.integers(0, 5),
    size=st.integers(1, 300),
    bad=st.sets(st.integers(0, 340), max_size=9),
)
def test_exactly_the_bad_samples_are_held_and_all_samples_are_committed_once(batch, first, size, bad):
    lo = first * batch
    unit = Unit(SHARD, lo, lo + size)
    job = Job(unit, bad, batch=batch)

    units = job.run()

    assert job.attempts.failed == []
    assert positions(units) == list(range(lo, lo + size))
    assert held(units) == bad & set(range(lo, lo + size))
    assert all(unit.lo % batch == 0 for unit in units)


@given(seed=st.integers(0, 10_000), bad=st.sets(st.integers(0, 99), max_size=3))
@settings(max_examples=50)
@example(seed=184, bad={97})
def test_accidents_put_no_sample_aside(seed, bad):
    """However often they hit, as long as a sample is once tried alone without one."""
    job = Job(Unit(SHARD, 0, 100), bad, tries=5)

    units = job.run(random.Random(seed))

    assert held(units) == bad
    assert positions(units) == list(range(100))


@given(batch=st.integers(1, 70), bad=st.sets(st.integers(0, 69), min_size=1, max_size=5))
def test_a_sample_is_at_fault_only_when_it_has_failed_alone_as_often_as_may_be(batch, bad):
    job = Job(Unit(SHARD, 0, batch), bad, tries=3, batch=batch)

    job.run()

    assert job.alone == {position: 3 for position in bad if position < batch}


def test_a_batch_that_fails_though_all_its_samples_are_held_is_reported():
    unit = Unit(SHARD, 0, 2, (Held(0, "hangs"), Held(1, "hangs")))
    attempts = Attempts([unit], 1, strikes=10, isolation=Isolation(BATCH, 1, 16))

    attempts.fail(attempts.take("a", idle=True, alternative=False), BAD, "a")

    assert attempts.failed == ["0.tar, samples 0 to 2: tried once: pid 7 is gone"]
    assert not attempts


def test_one_bad_sample_of_thousands_costs_few_workers():
    job = Job(Unit(SHARD, 0, 4096), {1234}, tries=3)

    assert held(job.run()) == {1234}
    assert job.failures == 3 + 2 + 1 + 3  # the unit, pieces of 64 batches and of 8, the batch, and the sample


def test_what_a_sample_does_is_held_on_to_in_fixed_words_and_in_full():
    (unit,) = Job(Unit(SHARD, 0, 8), {5}).run()

    assert unit.held == (Held(5, "ends its worker", "pid 7 is gone"),)


def test_samples_that_were_held_before_stay_held():
    known = Held(3, "raises")
    units = Job(Unit(SHARD, 0, 24, held=(known,)), {5}).run()

    assert [one.position for one in units[0].held] == [3, 5]
    assert units[0].held[0] == known
    assert units[1:] == [Unit(SHARD, 8, 16), Unit(SHARD, 16, 24)]


def test_a_shard_with_too_many_bad_samples_is_given_up_and_the_rest_of_its_units_is_committed():
    job = Job(Unit(SHARD, 0, 24), {0, 1, 2}, most=2)

    units = job.run()

    assert [(unit.lo, unit.hi) for unit in units] == [(8, 16), (16, 24)]
    assert len(job.attempts.failed) == 1
    assert "0.tar, samples 0 to 8: samples that fail alone: 0, 1; the trial of 2 was tried 2 times" in "".join(
        job.attempts.failed
    )
    assert not job.attempts


def test_nothing_is_split_when_no_sample_may_be_quarantined():
    job = Job(Unit(SHARD, 0, 24), {5}, most=0)

    assert job.run() == []
    assert job.attempts.failed == ["0.tar, samples 0 to 24: tried 2 times: pid 7 is gone"]


class Timed(Job):
    """Does units in simulated time, where a bad sample hangs: a trial takes as long as its batch, whatever it holds."""

    def __init__(self, unit: Unit, bad: set[int], seconds: float, begin: float) -> None:
        """Take the seconds that the unit may take and takes, and how many of them are over before its first batch."""
        super().__init__(unit, bad)
        self.attempts = Attempts([unit], self.tries, 10, seconds, Isolation(BATCH, self.tries, most=16))
        self.begin, self.batch = begin, (seconds - begin) / len(batches(unit))

    def run(self, accidents: random.Random | None = None) -> list[Unit]:
        while case := self.attempts.take("a", idle=True, alternative=False):
            needed = self.begin + self.batch * len(batches(case.unit))
            if self.bad & set(live(case.unit)) or needed > case.seconds + 1e-6:
                self.attempts.fail(case, overdue(case.seconds), "a")
            else:
                self.attempts.succeed(case)
                self.committed += [] if case.unit.trial else [case.unit]
        return sorted(self.committed, key=lambda unit: unit.lo)


def batches(unit: Unit) -> range:
    return range(unit.lo, unit.hi, BATCH)


@given(
    count=st.integers(1, 64),
    bad=st.sets(st.integers(0, 511), max_size=2),
    seconds=st.sampled_from([6.0, 130.0, 3600.0]),
    share=st.floats(0, 1),
)
@example(count=1, bad={5}, seconds=3600.0, share=0.0)
@example(count=64, bad={341}, seconds=3600.0, share=0.9)
def test_a_sample_that_hangs_makes_no_other_late_where_the_time_was_enough_for_its_unit(count, bad, seconds, share):
    """However much of the time goes to what does not shrink with a piece: a start, or a list that is read whole."""
    job = Timed(Unit(SHARD, 0, count * BATCH), bad, seconds, begin=share * seconds)

    units = job.run()

    assert job.attempts.failed == []
    assert positions(units) == list(range(count * BATCH))
    assert held(units) == bad & set(range(count * BATCH))


class FailsInCompany(Job):
    """Fails where two certain samples are tried together."""

    def run(self, accidents: random.Random | None = None) -> list[Unit]:
        while case := self.attempts.take("a", idle=True, alternative=False):
            if {1, 6} <= set(live(case.unit)):
                self.attempts.fail(case, BAD, "a")
            else:
                self.attempts.succeed(case)
                self.committed += [] if case.unit.trial else [case.unit]
        return self.committed


def test_a_batch_of_which_no_sample_fails_alone_is_reported_and_no_sample_blamed():
    job = FailsInCompany(Unit(SHARD, 0, 16), set())

    assert job.run() == [Unit(SHARD, 8, 16)]
    assert job.attempts.failed == [
        "0.tar, samples 0 to 8: none of its samples fails alone; the unit was tried 2 times: pid 7 is gone"
    ]


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.STORE])
def test_another_fault_during_the_search_fails_the_batch_and_not_in_silence(kind):
    attempts = Attempts([Unit(SHARD, 0, 8)], 1, strikes=10, isolation=Isolation(BATCH, 1, 16), outages=1)
    first = attempts.take("a", idle=True, alternative=False)
    attempts.fail(first, BAD, "a")
    trials = [attempts.take("a", idle=True, alternative=False) for _ in range(3)]
    attempts.fail(trials[0], Fault(kind, "cut short"), "a")
    attempts.succeed(trials[1])  # it was on its way when the search ended
    attempts.fail(trials[2], BAD, "b")

    assert attempts.take("a", idle=True, alternative=False) is None
    assert attempts.failed == [
        "0.tar, samples 0 to 8: none of its samples fails alone; the trial of 0 was tried once: cut short"
    ]


@pytest.mark.parametrize("size", [16, 8])
def test_what_a_unit_is_narrowed_down_to_is_tried_alone_and_no_failure_of_it_stops_the_job(size):
    """Pieces of two batches, trials of one, and the batch without its bad samples: each may be what ends a worker."""
    attempts = Attempts([Unit(SHARD, 0, size)], 1, strikes=2, isolation=Isolation(BATCH, 1, 32))
    attempts.fail(attempts.take("a", idle=True, alternative=False), BAD, "a")
    while attempts:
        attempts.lose(attempts.take("a", idle=True, alternative=False), BAD, "a")
        assert attempts.take("a", idle=False, alternative=False) is None
        case = attempts.take("a", idle=True, alternative=False)
        if live(case.unit):
            attempts.fail(case, BAD, "a")
        else:
            attempts.succeed(case)

    assert attempts.failed == []


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (Unit(SHARD, 0, 0), "0.tar"),
        (Unit(SHARD, 8, 11), "0.tar, samples 8 to 11"),
        (Unit(SHARD, 8, 11, (Held(9, ""),), trial=True), "0.tar, samples 8 to 11, trial of 8, 10"),
    ],
)
def test_people_are_told_what_is_tried(unit, words):
    assert str(Case(unit, tries=1)) == words


@given(lo=st.integers(0, 9), batches=st.integers(1, 600), short=st.integers(0, BATCH - 1))
def test_pieces_are_whole_batches_and_few(lo, batches, short):
    unit = Unit(SHARD, lo * BATCH, (lo + batches) * BATCH - short)

    pieces = split(unit, BATCH)

    assert positions(pieces) == list(range(unit.lo, unit.hi))
    assert len(pieces) == min(batches, len(pieces)) <= 8
    assert all(piece.lo % BATCH == 0 for piece in pieces)
    assert (len(pieces) == 1) == (batches == 1)
