"""From a run to the file: what it holds, how large it gets, and that the same run gives the same page."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from galleries import gallery_run
from ledgers import complete, image, input_shard, new_run, records_of

from capfilt.cli import cli


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return gallery_run(tmp_path_factory.mktemp("run")).root


def report(root, *options: object) -> str:
    result = CliRunner().invoke(cli, ["report", str(root), *map(str, options)])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_page_lies_in_the_run_unless_told_otherwise(root, tmp_path):
    assert report(root).startswith(f"{root}/report.html: 0.")
    report(root, "--output", tmp_path / "other.html")

    assert (tmp_path / "other.html").read_bytes() == Path(root, "report.html").read_bytes()


def test_another_seed_draws_other_samples(root, tmp_path):
    pages = []
    for seed in (0, 1):
        report(root, "--seed", seed, "--samples", 4, "--output", tmp_path / "page.html")
        pages.append(set(re.findall(r"<dd>(\d+), position (\d)</dd>", (tmp_path / "page.html").read_text())))

    assert pages[0] != pages[1]


def test_why_an_image_is_not_there_is_said_once_on_a_card(tmp_path):
    error = "is not an image that can be read: 4 bytes, b'junk'"
    shard = input_shard(tmp_path, [b"junk"])
    run = new_run(tmp_path, [shard])
    complete(run, shard, [each._replace(status="not_an_image", error=error) for each in records_of(shard)], [])

    report(run.root)

    page = html.unescape(Path(run.root, "report.html").read_text())
    cards = re.findall(r"<article.*?</article>", page, re.DOTALL)
    assert cards
    assert all(card.count("4 bytes") == 1 and "no image to show" in card for card in cards)


def test_images_are_left_out_when_the_file_would_grow_too_large(root, tmp_path):
    report(root, "--megabytes", 0.0005, "--output", tmp_path / "page.html")

    page = (tmp_path / "page.html").read_text()
    assert 0 < len("".join(re.findall(r'src="(data:[^"]+)"', page))) <= 7 * 500  # one sample may be in every gallery
    assert "left out, to keep the file small" in page


def test_a_key_of_any_length_makes_no_large_file(tmp_path):
    """The path of a list's line that is none is a key too, of up to 4 MiB."""
    shard = input_shard(tmp_path, [image(0)])
    run = new_run(tmp_path, [shard])
    complete(run, shard, [records_of(shard)[0]._replace(key="k" * 1_000_000)], [])

    report(run.root)

    assert Path(run.root, "report.html").stat().st_size < 100_000


def test_a_folder_as_output_is_answered_with_a_file_in_it(root, tmp_path):
    result = CliRunner().invoke(cli, ["report", root, "--output", str(tmp_path)])

    assert result.exit_code == 2
    assert f"--output {tmp_path} is a folder; give a file, such as {tmp_path}/report.html" in result.output


def test_another_policy_decides_what_is_kept(root, tmp_path):
    (tmp_path / "policy.yaml").write_text("{name: strict, web_itm: 0.9, synthetic_itm: 0.9}\n")
    report(root, "--policy", tmp_path / "policy.yaml", "--output", tmp_path / "page.html")

    assert "policy <strong>strict</strong>" in (tmp_path / "page.html").read_text()


def test_a_page_of_a_share_of_the_shards_says_so(root, tmp_path):
    report(root, "--share", 0.3, "--output", tmp_path / "page.html")

    assert "that were looked at: 1 of 3 shards, drawn by their ids." in (tmp_path / "page.html").read_text()


def test_a_run_without_a_complete_shard_has_a_page_too(tmp_path):
    run = new_run(tmp_path)

    assert report(run.root).startswith(f"{run.root}/report.html: 0.")
    assert "None in this run." in Path(run.root, "report.html").read_text()


def test_whoever_only_looks_does_not_wait_for_torch():
    code = "import sys, capfilt.inspect, capfilt.report.make; print('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"
