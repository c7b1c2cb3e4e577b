"""The command scan, as it is typed."""

import io
import json
import os
import struct
import subprocess
import sys
from socket import gethostname

import pytest
from click.testing import CliRunner, Result
from fakes import picture, write_shard
from PIL import Image
from PIL.TiffImagePlugin import SAMPLESPERPIXEL

from capfilt.cli import cli
from capfilt.shards import write_tar


def capfilt(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def test_inputs_are_those_of_the_line_or_of_a_bootstrap(tmp_path):
    shard = write_shard(tmp_path / "in/00000.tar", [("red", "a"), (picture("red", (50, 10)), "b")])
    text = f"input: [{tmp_path}/in]\nrun: r\ncaptioner: c\nfilter: f\nimages: {{max_aspect: 2}}\n"
    (tmp_path / "job.yaml").write_text(text)

    named = capfilt("scan", shard, "--workers", 1, "--json")
    configured = capfilt("scan", "--config", tmp_path / "job.yaml", "--workers", 1, "--json")

    assert named.exit_code == configured.exit_code == 0, named.output
    assert json.loads(named.output)["statuses"] == {"ok": 2}
    assert json.loads(configured.output)["statuses"] == {"bad_shape": 1, "ok": 1}


def test_what_a_bootstrap_would_meet_stands_last(tmp_path):
    shard = write_shard(tmp_path / "00000.tar", [("red", "a"), (b"no image", "b")])

    result = capfilt("scan", shard, "--workers", 1)

    assert result.output.endswith("a bootstrap scores 1 of 2 samples (50.0 %)\nsamples that fail: 1 not_an_image\n")


def test_limits_can_be_set_without_a_file(tmp_path):
    shard = write_shard(tmp_path / "00000.tar", [("red", "a")])

    result = capfilt("scan", shard, "--workers", 1, "--set", "images.min_side=100", "--json")

    assert json.loads(result.output)["statuses"] == {"bad_shape": 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_pillow_finds_in_a_file_stands_in_no_line_that_names_none(tmp_path, workers):
    jpeg, tiff = io.BytesIO(), io.BytesIO()
    cut = b"Exif\0\0II*\0" + struct.pack("<IHH", 8, 5, 274)  # five entries, of which a part of the first is there
    Image.new("RGB", (20, 20)).save(jpeg, "JPEG", exif=cut)
    Image.new("RGB", (20, 20)).save(tiff, "TIFF")
    three, many = (struct.pack("<HHII", SAMPLESPERPIXEL, 3, 1, count) for count in (3, 1 << 15))
    write_tar(tmp_path / "0.tar", [("0.jpg", jpeg.getvalue()), ("1.tif", tiff.getvalue().replace(three, many))])
    command = [sys.executable, "-m", "capfilt.cli", "scan", str(tmp_path / "0.tar"), "--workers", str(workers)]

    result = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "samples that fail: 1 not_an_image" in result.stdout
    assert result.stderr == ""


ENDLESS = """
import time
from capfilt.cli import cli
from capfilt.scan import figures

def wait(tasks, workers):
    print("ready", flush=True)
    time.sleep(60)
    yield

figures.run_tasks = wait
cli()
"""


def test_a_scan_that_is_ended_by_a_signal_leaves_nothing_in_the_temporary_folder(tmp_path):
    shard, scratch = write_shard(tmp_path / "00000.tar", [("red", "a")]), tmp_path / "tmp"
    scratch.mkdir()
    command = [sys.executable, "-c", ENDLESS, "scan", shard]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(scratch)}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (folder,) = scratch.iterdir()
        process.terminate()

    assert folder.name.startswith(f"capfilt-{gethostname()}-")
    assert process.returncode == 143
    assert list(scratch.iterdir()) == []


def test_nothing_to_look_at_is_a_wrong_command_line():
    result = capfilt("scan")

    assert result.exit_code == 2
    assert "give INPUTS, or --config FILE" in result.output
