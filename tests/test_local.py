import pytest

from capfilt.errors import CheckpointError, FailedUnitsError, ShardError
from capfilt.records import Shard, Unit
from capfilt.runs.stop import Stop
from workers.local import run_local

UNITS = [Unit(Shard(str(n), f"{n}.tar", 0, "", 8), 0, 8) for n in range(3)]


class Fails:
    """Raises at the second unit."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self, unit: Unit) -> str:
        if unit is UNITS[1]:
            raise self.error
        return unit.shard.id


@pytest.mark.parametrize("error", [ShardError("cut short"), OSError("disk full")])
def test_a_fault_of_data_or_disk_fails_its_unit_alone(error):
    done = []

    with pytest.raises(FailedUnitsError, match=rf"1\.tar, samples 0 to 8: tried once: {type(error).__name__}: {error}"):
        done.extend(run_local(lambda: Fails(error), UNITS))

    assert done == ["0", "2"]


def test_a_stop_begins_no_other_unit():
    stop, done = Stop(), []
    for result in run_local(lambda: Fails(KeyError()), UNITS, stop=stop):
        done.append(result)
        stop.ask()

    assert done == ["0"]


def test_a_stop_before_the_first_unit_begins_nothing():
    stop = Stop()
    stop.ask()

    assert list(run_local(lambda: pytest.fail("a worker was built"), UNITS, stop=stop)) == []


def test_a_fault_of_the_program_stops_the_job():
    with pytest.raises(KeyError):
        list(run_local(lambda: Fails(KeyError("encoder")), UNITS))


def test_a_worker_that_cannot_be_built_stops_the_job():
    def make() -> Fails:
        raise CheckpointError("no checkpoint at med.pt")

    with pytest.raises(CheckpointError):
        list(run_local(make, UNITS))
    assert list(run_local(make, [])) == []  # and with nothing to do none is built
