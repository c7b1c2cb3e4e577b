import threading
from contextlib import suppress

import pytest

from capfilt.beside import beside


@pytest.mark.parametrize("error", [None, KeyError, KeyboardInterrupt])
def test_work_beside_a_job_ends_with_it_however_it_ends(error):
    began, ended = threading.Event(), threading.Event()

    def work(done: threading.Event) -> None:
        began.set()
        done.wait()
        ended.set()

    with suppress(KeyError, KeyboardInterrupt), beside(work):
        assert began.wait(60)
        assert not ended.is_set()
        if error:
            raise error
    assert ended.is_set()
