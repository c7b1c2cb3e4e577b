import io
import sys

import pytest

from capfilt import progress
from capfilt.progress import Progress, Tally
from capfilt.records import Shard, Unit, UnitResult

UNIT = Unit(Shard("0", "0.tar", 0, "", 8), 0, 8)


def test_a_tally_adds_up():
    tally = Tally()
    tally.add(UnitResult(UNIT, {"ok": 6, "truncated": 2}, {"web": 4, "synthetic": 6}, {"web": 1, "synthetic": 5}, 30))
    tally.add(UnitResult(UNIT, {"ok": 7, "no_image": 1}, {"web": 4, "synthetic": 7}, {"synthetic": 7}, 30))

    assert tally.shares == "synthetic 92% kept, web 12% kept"
    assert str(tally) == (
        "16 samples: 13 scored, 3 failed (1 no_image, 2 truncated); 21 candidates (synthetic 92% kept, web 12% kept)"
    )


def test_an_empty_tally_can_be_told():
    assert str(Tally()) == "0 samples: 0 scored, 0 failed; 0 candidates"


def test_a_line_counts_only_what_was_done_since_the_start_towards_the_speed():
    bar = Progress(10_000, 4_000)
    bar.add(2_000, "")

    assert bar.line(100.0) == "6,000 of 10,000 samples, 20.0 images/s, 0:03:20 left"


def test_a_log_gets_plain_lines_now_and_then(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with Progress(100, 0) as bar:
        bar.add(10, "web 50% kept")
        assert log.getvalue() == ""
        monkeypatch.setattr(progress, "INTERVAL", 0.0)
        bar.add(10, "web 50% kept")

    (line,) = log.getvalue().splitlines()
    assert line.startswith("20 of 100 samples, ")
    assert line.endswith(" left, web 50% kept")


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
