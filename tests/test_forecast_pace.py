import pytest
from forecasts import config, rehearsal

from capfilt.forecast.pace import cores, measured, pace_at

GPU = {"device": {"kind": "cuda"}, "cluster": {"gpus_per_worker": 1, "address": "head:6379"}}


def test_a_rate_that_is_told_has_no_spread_and_no_bound():
    pace = pace_at(50)
    assert (pace.seconds, pace.bound) == ((0.02, 0.02, 0.02), "")


@pytest.mark.parametrize(
    ("changes", "seconds", "bound"),
    [
        ({}, 0.010, "the models"),
        ({"decode": [0.080, 0.080]}, 0.020, "decoding"),  # two units with two threads each
        ({"read": [0.050, 0.050]}, 0.025, "reading"),  # two units with one thread each
    ],
)
def test_the_slowest_sets_the_pace(changes, seconds, bound):
    pace = measured(rehearsal(**changes), config(**GPU), in_flight=2)
    assert pace.seconds == pytest.approx((seconds,) * 3)
    assert pace.bound == bound


def test_threads_and_cores_are_told_with_which_the_models_do_not_wait():
    pace = measured(rehearsal(decode=[0.080, 0.080]), config(**GPU), in_flight=2)
    assert pace.threads_needed == 4  # with two units, eight threads of 0.08 s each for every 0.01 s
    assert pace.cores_needed == pytest.approx(9)  # and the one that drives the GPU
    enough = config(**GPU, decode_threads=4)
    assert measured(rehearsal(decode=[0.080, 0.080]), enough, in_flight=2).bound == "the models"


def test_on_a_cpu_all_threads_share_the_cores(monkeypatch):
    job = config(cluster={"address": "head:6379", "cpus_per_worker": 1})
    pace = measured(rehearsal(), job, in_flight=2)
    assert pace.bound == "the CPU cores"
    assert pace.seconds.likely == pytest.approx(0.010 + 0.008 + 0.001)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert measured(rehearsal(), config(cluster={"workers": 4}), in_flight=2).bound == "the models"


def test_decoding_apart_takes_no_cores_of_the_worker():
    job = config(cluster={"address": "head:6379", "cpus_per_worker": 1, "decode_cpus": 2})
    pace = measured(rehearsal(), job, in_flight=2)
    assert pace.seconds.likely == pytest.approx(0.010)
    assert pace.cores_needed == 1


def test_a_worker_has_its_share_of_this_machine_and_elsewhere_what_is_reserved(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert cores(config(cluster={"workers": 4})) == 2
    assert cores(config(cluster={"workers": 16})) == 1
    assert cores(config(cluster={"workers": 4, "address": "head:6379", "cpus_per_worker": 3})) == 3


def test_the_spread_of_the_repeats_is_that_of_the_pace():
    pace = measured(rehearsal(model=[0.009, 0.010, 0.011]), config(**GPU), in_flight=2)
    assert pace.seconds.likely == pytest.approx(0.010)
    assert pace.seconds.high == pytest.approx(0.010 + 4.30 * 0.001 / 3**0.5)
