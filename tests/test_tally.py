import re
import time

from capfilt.records import Shard, Unit, UnitResult
from capfilt.tally import Tally

UNIT = Unit(Shard("0", "0.tar", 0, "", 8), 0, 8)


def test_a_tally_adds_up():
    tally = Tally()
    tally.add(UnitResult(UNIT, {"ok": 6, "truncated": 2}, {"web": 4, "synthetic": 6}, {"web": 1, "synthetic": 5}, 30))
    tally.add(UnitResult(UNIT, {"ok": 7, "no_image": 1}, {"web": 4, "synthetic": 7}, {"synthetic": 7}, 1000))

    assert tally.shares == "synthetic 92% kept, web 12% kept"
    assert str(tally).splitlines()[:2] == [
        "16 samples: 13 scored, 3 failed (1 no_image, 2 truncated)",
        "21 candidates: synthetic 12 of 13 kept (92.3%), web 1 of 8 kept (12.5%); 1,030 tokens generated",
    ]


def test_an_empty_tally_is_one_line():
    assert str(Tally()) == "0 samples: 0 scored, 0 failed"


def test_the_seconds_of_stages_are_told_as_shares_of_the_time_that_workers_were_ready(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tally = Tally()
    now[0] = 110.0  # ten seconds without a worker count for none

    assert tally.work(ready=2) == 0.0
    now[0] = 150.0
    assert tally.work(ready=1) == 80.0
    now[0] = 170.0
    assert tally.work(ready=0) == 20.0

    tally.add(UnitResult(UNIT, {"ok": 7}, {}, {}, 0, {"caption": 30.0, "score": 45.0, "read": 120.0, "write": 1.0}))
    assert str(tally).splitlines()[-1] == (
        "0:01:10, 0.1 images/s; of the workers' time: caption 30%, score 45%, models idle 25%; "
        "beside that read 120%, write 1%"
    )


def test_failed_attempts_are_told_by_cause():
    tally = Tally()
    tally.failures.update({"death": 2, "deadline": 1})

    assert re.fullmatch(
        r"3 attempts at units failed \(1 deadline, 2 death\); .*journal\.jsonl", str(tally).splitlines()[1]
    )


def test_it_says_how_samples_that_are_set_aside_are_tried_again():
    tally = Tally()
    tally.add(UnitResult(UNIT, {"ok": 6, "quarantined": 2}, {}, {}, 0))

    assert str(tally).splitlines()[-1] == "2 samples quarantined; to try again, start with --retry-quarantined"
