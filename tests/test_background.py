import threading
from contextlib import suppress

import pytest

from capfilt.background import in_background


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
