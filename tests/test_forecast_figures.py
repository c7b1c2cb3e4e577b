import json

import pytest
from forecasts import config, rehearsal, survey

from capfilt.forecast import Pace, forecast, pace_at, render_forecast
from capfilt.forecast.figures import ALLOWANCE, START

RATE = pace_at(100)  # 1000 samples take 10 seconds
GPU = {"kind": "cuda"}


def seconds(found):
    return pytest.approx([3600 * hours for hours in found.hours])


def test_hours_follow_from_samples_pace_and_workers():
    found = forecast(config(cluster={"workers": 2}), survey(4), None, RATE)
    likely = 4 * 10 / 2
    assert [3600 * h for h in found.hours] == pytest.approx(
        [likely, likely + START.likely, (likely + START.high + 10) * (1 + ALLOWANCE)]
    )


def test_of_three_units_for_two_workers_one_does_two():
    found = forecast(config(cluster={"workers": 2}), survey(3), None, RATE)
    assert 3600 * found.hours.low == pytest.approx(15)
    assert 3600 * found.hours.likely == pytest.approx(20 + START.likely)


def test_workers_without_a_unit_make_nothing_faster_and_cost_all_the_same():
    few = forecast(config(device=GPU, cluster={"workers": 3, "gpus_per_worker": 1}), survey(3), None, RATE, price=2.0)
    many = forecast(config(device=GPU, cluster={"workers": 30, "gpus_per_worker": 1}), survey(3), None, RATE, price=2.0)
    assert (few.hours, many.workers, many.devices) == (many.hours, 3, 30)
    assert many.cost.likely == pytest.approx(10 * few.cost.likely)
    assert few.cost.likely == pytest.approx(few.hours.likely * 3 * 2.0)


def test_only_what_is_left_counts():
    whole, rest = (forecast(config(), survey(4, done=done), rehearsal(), RATE) for done in (0, 3))
    assert rest.survey.samples_left == (1000, 1000, 1000)
    assert rest.hours.likely < whole.hours.likely / 2
    assert rest.ledger_bytes.likely == pytest.approx(1000 * 100 + 50)
    done = forecast(config(), survey(4, done=4), None, RATE)
    assert done.hours == (0, 0, 0)
    assert (whole.workers, done.workers) == (1, 0)
    assert "workers with something to do: 0;" in render_forecast(done)


def test_loading_and_export_take_their_time():
    pace = Pace(RATE.seconds, "the models", load=60.0, export=0.001)
    with_export = forecast(config(), survey(1), None, pace)
    without = forecast(config(export=False), survey(1), None, pace)
    assert 3600 * (with_export.hours.likely - without.hours.likely) == pytest.approx(1.0)
    assert 3600 * without.hours.low == pytest.approx(10 + 60)
    assert without.clean_bytes == (0, 0, 0)


def test_clean_shards_are_as_large_as_the_share_that_is_kept():
    found = forecast(config(), survey(1), rehearsal(), RATE)
    assert found.clean_bytes.likely == 10 * 1000 * 0.5
    assert found.clean_bytes.low < found.clean_bytes.likely < found.clean_bytes.high
    nothing = forecast(config(), survey(1), rehearsal(exported=0, clean=0.0), RATE)
    assert nothing.clean_bytes.likely == 0
    assert 0 < nothing.clean_bytes.high < 0.1 * 10 * 1000


def test_shards_that_were_not_looked_at_are_taken_to_be_like_the_others():
    found = forecast(config(), survey(10, files=1000), rehearsal(), RATE)
    assert found.survey.samples_left == (1_000_000, 1_000_000, 1_000_000)
    told_ = render_forecast(found)
    assert told_.startswith("1,000 shards, about 1,000,000 samples by 10 of them, ")
    assert "--all looks at every shard" in told_


def test_without_a_pace_there_are_no_hours():
    found = forecast(config(), survey(), None, None, price=2.0)
    assert (found.hours, found.device_hours, found.cost, found.ledger_bytes) == (None, None, None, None)
    assert "time" not in render_forecast(found)


def test_the_table_and_the_json_tell_the_same():
    found = forecast(config(device=GPU, cluster={"gpus_per_worker": 1}), survey(), rehearsal(), RATE, price=2.0)
    values = json.loads(json.dumps(found.to_json()))
    table = {line.split("  ")[1].strip(): line.split() for line in render_forecast(found).splitlines() if "  " in line}
    assert float(table["cost"][1]) == pytest.approx(values["cost"]["likely"], rel=0.05)
    assert table["samples"][1:4] == ["4,000"] * 3
    assert table["web"][1:3] == ["25.0", "%"]
    assert values["kept"]["web"]["share"] == 0.25
    assert values["kept"]["synthetic"]["part"] == 0
    assert values["device"] == "GPU"


def test_the_range_says_what_it_covers_and_what_not():
    table = render_forecast(forecast(config(), survey(10, files=1000), rehearsal(), RATE))
    assert "the spread of the rehearsal's repeats and of the shards that were looked at (95 of 100 cases)" in table
    assert "10% on the upper end for stragglers and restarts" in table
    assert "Not in them: other work on the machines, workers that share one and slow each other down" in table
