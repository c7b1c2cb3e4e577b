import threading
from contextlib import suppress

import pytest

from capfilt.background import in_background, map_in_threads


@pytest.mark.parametrize("error", [None, KeyError, KeyboardInterrupt])
def test_work_in_the_background_ends_with_the_job_however_it_ends(error):
    began, ended = threading.Event(), threading.Event()

    def work(done: threading.Event) -> None:
        began.set()
        done.wait()
        ended.set()

    with suppress(KeyError, KeyboardInterrupt), in_background(work):
        assert began.wait(60)
        assert not ended.is_set()
        if error:
            raise error
    assert ended.is_set()


def test_calls_wait_together_and_their_results_keep_the_order():
    together = threading.Barrier(3, timeout=60)

    assert map_in_threads(lambda item: (together.wait(), item)[1], "abc") == ["a", "b", "c"]


def test_the_error_of_a_call_is_raised():
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda item: 1 // item, [1, 0])
