import io
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from capfilt import progress
from capfilt.progress import Progress


def test_a_line_counts_only_what_was_done_since_the_start_towards_the_speed():
    bar = Progress(10_000, 4_000)
    bar.add(2_000, "")

    assert bar.line(100.0) == "6,000 of 10,000 samples, 20.0 images/s, 0:03:20 left"


def listen(monkeypatch) -> io.StringIO:
    """Return what goes to a standard error that is no terminal, from now on."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("capfilt.logs._style", None)
    return stream


def clock(monkeypatch) -> list[float]:
    """Return the time of a clock that stands still, and that no busy machine counts on, from now on."""
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_log_gets_plain_lines_now_and_then(monkeypatch):
    log = listen(monkeypatch)
    with Progress(100, 0) as bar:
        bar.add(10, "web 50% kept")
        assert log.getvalue() == ""
        monkeypatch.setattr(progress, "INTERVAL", 0.0)
        bar.add(10, "web 50% kept")

    (line,) = log.getvalue().splitlines()
    assert line.startswith("20 of 100 samples, ")
    assert line.endswith(" left, web 50% kept")


def wait_for_lines(log: io.StringIO, count: int) -> list[str]:
    deadline = time.monotonic() + 20
    while len(log.getvalue().splitlines()) < count:
        assert time.monotonic() < deadline, log.getvalue()
        time.sleep(0.01)
    return log.getvalue().splitlines()


def test_it_is_said_when_nothing_gets_done_for_long_and_what_is_waited_for(monkeypatch):
    log, now = listen(monkeypatch), clock(monkeypatch)
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    with Progress(100, 0, lambda: "in hand: 7.tar") as bar:
        bar.add(10, "")
        now[0] = 0.9
        wait_for_lines(log, 1)
        now[0] = 1.2
        lines = wait_for_lines(log, 2)

    assert lines[0] == "10 of 100 samples, nothing done for 0:00:01; in hand: 7.tar"
    assert lines[1] == "10 of 100 samples, nothing done for 0:00:01; in hand: 7.tar"


def test_nothing_is_said_of_silence_while_things_get_done_nor_after_the_end(monkeypatch):
    log, now = listen(monkeypatch), clock(monkeypatch)
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    with Progress(100, 0) as bar:
        for _ in range(8):
            now[0] += 0.04
            bar.add(1, "")
            time.sleep(0.1)
    now[0] += 1.0
    for thread in threading.enumerate():
        if thread.name == "progress":
            thread.join(60)

    assert log.getvalue() == ""
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


@pytest.mark.parametrize("done", [0, 50])
def test_a_terminal_gets_a_bar(monkeypatch, done):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(100, done) as bar:
        bar.add(50, "web 50% kept")

    assert f"{done + 50}/100" in terminal.getvalue()
    assert "web 50% kept" in terminal.getvalue()
