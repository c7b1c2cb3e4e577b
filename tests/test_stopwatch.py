import time

from capfilt.stopwatch import Stopwatch


def test_a_stopwatch_adds_up_stages_and_waiting(monkeypatch):
    clock, now = Stopwatch(), [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def items():
        for n in range(3):
            now[0] += 1.0
            yield n

    for _ in clock.each("read", items()):
        with clock("score"):
            now[0] += 2.0

    assert clock.seconds == {"read": 3.0, "score": 6.0}
