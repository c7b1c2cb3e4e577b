import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import ray
from fakes import NAMES, ColourCaptioner, ColourFilter, job_config, write_shard
from torch import Tensor

from capfilt import logs
from capfilt.bootstrap import CapFilt
from capfilt.config import BootstrapConfig
from capfilt.logs import LogSettings, bound, configure, everywhere, say, say_error
from capfilt.prefetch import prefetch
from capfilt.records import Caption
from pipelines import bootstrap

logger = logging.getLogger("capfilt.tests")


@pytest.fixture(autouse=True)
def _as_it_was():
    """Take back what a test sets up: all of it belongs to the process."""
    root = logging.getLogger()
    handlers, style, levels = root.handlers[:], logs._style, {name: logging.getLogger(name).level for name in logs.OURS}
    yield
    root.handlers[:] = handlers
    logs._style = style
    logging.captureWarnings(False)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def listen(monkeypatch, style) -> io.StringIO:
    """Log from nothing on, as a command does, to what is returned."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logs, "_style", None)
    logging.getLogger().handlers[:] = []
    configure(style)
    return stream


def test_a_line_of_text_has_its_words_first_and_then_what_it_is_about(monkeypatch):
    log = listen(monkeypatch, "text")
    with everywhere(run="/runs/a"), bound(shard="00042", unit="00000000-00000008"):
        logger.warning("%s is slow", "it", extra={"attempt": 2, "place": "pid 7 on 10.0.0.5"})
    logger.info("all is well")

    first, second = log.getvalue().splitlines()
    assert first[20:] == (
        'WARNING it is slow [run=/runs/a shard=00042 unit=00000000-00000008 attempt=2 place="pid 7 on 10.0.0.5"]'
    )
    assert second[20:] == "INFO all is well"


def test_a_line_of_json_has_the_same_as_fields(monkeypatch):
    log = listen(monkeypatch, "json")
    with everywhere(run="/runs/a"), bound(shard="00042"):
        logger.warning("it is slow", extra={"attempt": 2, "_ray": 1})  # Ray adds such by itself

    record = json.loads(log.getvalue())
    assert record.pop("time")[10] == "T"
    assert record == {
        "level": "warning",
        "logger": "capfilt.tests",
        "message": "it is slow",
        "run": "/runs/a",
        "shard": "00042",
        "attempt": 2,
    }


@pytest.mark.parametrize("style", logs.STYLES)
def test_a_record_is_one_line_and_hides_credentials_wherever_they_stand(monkeypatch, style):
    log = listen(monkeypatch, style)
    with bound(shard="s3://key:open-sesame@store/0.tar"):
        logger.warning("https://x/0.tar?sig=open-sesame\nERROR a forged line\x1b[2J\u202e", extra={"reason": "a\nb"})

    assert "open-sesame" not in log.getvalue()
    assert log.getvalue().count("\n") == 1
    assert not set("\x1b\u202e") & set(log.getvalue())


@pytest.mark.parametrize("style", logs.STYLES)
def test_an_exception_is_told_with_its_trace(monkeypatch, style):
    log = listen(monkeypatch, style)
    try:
        raise KeyError("https://user:open-sesame@x")
    except KeyError:
        logger.exception("no")

    assert "Traceback" in log.getvalue()
    assert "KeyError" in log.getvalue()
    assert "open-sesame" not in log.getvalue()
    assert log.getvalue().count("\n") == (1 if style == "json" else 5)


def test_others_are_heard_when_they_warn(monkeypatch):
    log = listen(monkeypatch, "json")
    logging.getLogger("another").info("chatter")
    logging.getLogger("another").warning("trouble")

    assert json.loads(log.getvalue())["message"] == "trouble"


def test_fields_end_where_their_block_does_and_bound_ones_are_of_one_thread(monkeypatch):
    log = listen(monkeypatch, "json")
    with everywhere(run="/runs/a"), bound(unit="0-8"):
        with everywhere(run="/runs/b"):
            logger.info("inside")
        thread = threading.Thread(target=logger.info, args=["beside"])
        thread.start()
        thread.join()
    logger.info("outside")

    fields = [{"run": None, "unit": None} | json.loads(line) for line in log.getvalue().splitlines()]
    assert [(field["message"], field["run"], field["unit"]) for field in fields] == [
        ("inside", "/runs/b", "0-8"),
        ("beside", "/runs/a", None),
        ("outside", None, None),
    ]


def test_threads_that_read_and_decode_log_for_the_unit_they_work_for(monkeypatch):
    log = listen(monkeypatch, "json")
    with bound(unit="0-8"):
        batches = prefetch(_noisy(), 2, lambda item: logger.info("decoded") or item, threads=2)
        assert list(batches) == [[0, 1], [2, 3]]

    records = [json.loads(line) for line in log.getvalue().splitlines()]
    assert {(record["message"], record["unit"]) for record in records} == {("read", "0-8"), ("decoded", "0-8")}


def _noisy():
    for n in range(4):
        logger.info("read")
        yield n


def test_settings_set_up_another_process_in_the_same_way(monkeypatch):
    listen(monkeypatch, "json")
    with everywhere(run="/runs/a"):
        settings = LogSettings.here()
    code = (
        "import logging; from capfilt.logs import LogSettings\n"
        f"{settings!r}.apply(); logging.getLogger('workers.pool').info('here')"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    record = json.loads(done.stderr)
    assert (record["message"], record["run"]) == ("here", "/runs/a")


class NoisyCaptioner(ColourCaptioner):
    def write(self, pixels: Tensor, noise: Sequence[int]) -> list[list[Caption]]:
        logger.warning("at work on %d images", len(pixels))
        return super().write(pixels, noise)


def build_noisy(config: BootstrapConfig) -> CapFilt:
    return CapFilt(NoisyCaptioner(), ColourFilter())


@pytest.mark.usefixtures("ray_cluster")
def test_an_actor_logs_as_the_driver_does_with_the_unit_it_is_at_into_the_files_of_ray(monkeypatch, tmp_path):
    listen(monkeypatch, "json")
    write_shard(tmp_path / "in/00007.tar", [("red", "")] * 11)
    bootstrap.run(job_config(tmp_path, cluster={"workers": 1}), build_noisy, NAMES)

    files = Path(ray.nodes()[0]["ObjectStoreSocketName"]).parents[1].glob("logs/worker-*.err")
    lines = [line for file in files for line in file.read_text().splitlines() if "at work on" in line]
    found = [record for line in lines if (record := json.loads(line))["run"] == f"{tmp_path}/run"]
    assert sorted((record["shard"], record["unit"], record["message"]) for record in found) == [
        ("00007", "00000000-00000008", "at work on 4 images"),
        ("00007", "00000000-00000008", "at work on 4 images"),
        ("00007", "00000008-00000011", "at work on 3 images"),
    ]


def test_a_program_that_sets_up_no_log_gets_plain_lines(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logs, "_style", None)

    say("20 of 100 samples")

    assert stream.getvalue() == "20 of 100 samples\n"


def test_why_a_command_ends_is_a_plain_line_or_a_record(monkeypatch):
    text = listen(monkeypatch, "text")
    say_error("Error: no checkpoint at https://u:open-sesame@x")
    assert text.getvalue() == "Error: no checkpoint at https://***@x\n"

    log = listen(monkeypatch, "json")
    say_error("Error: no checkpoint")
    assert json.loads(log.getvalue())["level"] == "error"
