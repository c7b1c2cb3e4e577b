import pickle

import pytest

from capfilt import errors
from capfilt.errors import FailedUnitsError, ImageError, PlanningError, StoppedError
from workers import faults

ARGUMENTS = {
    ImageError: ("truncated", "1.jpg: is cut short"),
    StoppedError: ("8 samples", ["1.tar: is cut short", "2.tar: is gone"]),
    PlanningError: (["1.tar: is cut short", "2.tar: is gone"], True, "the store does not answer"),
    FailedUnitsError: (["1.tar: is cut short", "2.tar: is gone"], "8 samples"),
}
KINDS = [
    kind
    for module in (errors, faults)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_another_process_says_the_same_and_carries_the_same(kind):
    error = kind(*ARGUMENTS.get(kind, ("s3://key:secret@host/1.tar: is \x1b[2J cut short",)))
    error.add_note("seen by worker 3")

    arrived = pickle.loads(pickle.dumps(error))

    assert (type(arrived), str(arrived), arrived.args) == (kind, str(error), error.args)
    assert vars(arrived) == vars(error)
