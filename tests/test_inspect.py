"""What a terminal gets to see: never a command of a web text."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata

import pytest
from click.testing import CliRunner
from galleries import ESCAPES, LONG, SCRIPT, gallery_run
from ledgers import complete, new_run, record
from PIL import Image
from rich.console import Console

from capfilt.cli import cli
from capfilt.config import ImageLimits
from capfilt.inspect import SHOWN_CHARACTERS, as_colours, as_plain, thumbnail
from capfilt.query.cards import Card, CardText
from capfilt.records import Shard

SGR = re.compile(r"\x1b\[[0-9;]*m")  # sets colours, and can do nothing else


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return gallery_run(tmp_path_factory.mktemp("run")).root


@pytest.fixture(scope="module")
def screen(root):
    """All samples as a terminal shows them."""
    return on_terminal(root, "--limit", "100")


def inspect(root, *options: str) -> str:
    result = CliRunner().invoke(cli, ["inspect", root, *options])
    assert result.exit_code == 0, result.output
    return result.output


def on_terminal(root, *options: str, **environment: str) -> str:
    """Return what a terminal of 100 columns would get."""
    ours, theirs = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "LESS")}
    settings = {"PAGER": "cat", "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "100"}
    command = [sys.executable, "-m", "capfilt.cli", "inspect", root, *options]
    with subprocess.Popen(command, stdout=theirs, stdin=theirs, env=plain | settings | environment) as process:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # Linux says so when the other side is closed
            pass
        os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_a_pipe_gets_one_plain_line_for_each_text(root):
    text = inspect(root, "--key", "<b>3")

    assert text == (
        "<b>3  00000:3  javascript:alert(1)//<U+202E>\n"
        "  ✓ web        0.5200  kept       a dog\n"
        "  ✗ synthetic  0.4990  low_itm    a caption 3\n\n"
    )


def test_a_terminal_gets_images_colours_and_marks(screen):
    assert re.search("\x1b\\[38;2;[0-9;]+;48;2;[0-9;]+m▀", screen)
    assert re.search("\x1b\\[1;31m✗ web +0.4500 +low_itm", screen)
    assert re.search("\x1b\\[31ma hen", screen)
    assert re.search("\x1b\\[1;32m✓ synthetic +0.5500 +kept", screen)
    assert re.search("\x1b\\[32ma duck", screen)


@pytest.mark.parametrize("colours", [True, False])
def test_no_text_of_the_web_commands_the_terminal(root, screen, colours):
    text = SGR.sub("", screen if colours else inspect(root, "--limit", "100"))

    assert {c for c in text if unicodedata.category(c) in ("Cc", "Cf")} == {"\n"}
    assert "<U+001B>[2J" in text.replace("\n", "")


def card(text: str = "a dog", itm: float | None = 0.25, **changes: str) -> Card:
    """Return a sample with one rejected text."""
    values = {"key": "key7", "image_sha256": "", "url": "", "status": "ok", "error": "", **changes}
    texts = [CardText("web", text, itm, None, kept=False, reason="low_itm", admitted=True, same=0)]
    return Card(shard="00000", position=7, width=None, height=None, texts=texts, **values)


@pytest.mark.parametrize("field", ["key", "url", "error", "text"])
def test_nothing_that_came_with_a_sample_commands_the_terminal(field):
    (shown,) = as_plain([card(**({"status": "truncated"} | {field: "\x1b[2J\u202egnp.exe"}))])

    assert "<U+001B>[2J<U+202E>gnp.exe" in shown
    assert shown.replace("\n", "").isprintable()


def test_a_quarantined_sample_is_shown_with_what_tries_it_again():
    held, failed = as_plain([card(status=status, error="kills its worker") for status in ("quarantined", "truncated")])

    assert "! quarantined: kills its worker; to try it again, bootstrap with --retry-quarantined\n" in held
    assert "! truncated: kills its worker\n" in failed


@pytest.mark.parametrize(("field", "most"), [("url", 120), ("error", SHOWN_CHARACTERS)])
def test_of_a_url_and_an_error_the_beginning_is_shown(field, most):
    whole, cut = ("".join(as_plain([card(status="truncated", **{field: "x" * n})])) for n in (most, most + 1))

    assert "x" * most in whole
    assert "x" * (most - 1) + "…" in cut


def test_a_text_without_a_score_says_so_and_one_that_fits_is_whole():
    (shown,) = as_plain([card(text="x" * SHOWN_CHARACTERS, itm=None)])

    assert shown == f"key7  00000:7\n  ✗ web          none  low_itm    {'x' * SHOWN_CHARACTERS}\n\n"


def test_a_score_just_under_the_cut_does_not_look_like_it():
    (shown,) = as_plain([card(text="a dog", itm=0.49999)])

    assert "  0.4999  low_itm" in shown


def test_a_cell_shows_two_pixels_and_the_last_row_of_an_odd_height_stands_alone():
    small = Image.new("RGB", (2, 3))
    for y, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        for x in range(2):
            small.putpixel((x, y), colour)
    file = io.BytesIO()
    small.save(file, "PNG")

    drawn = thumbnail(file.getvalue(), ImageLimits())

    assert drawn.plain == "▀▀\n▀▀"
    colours = {str(span.style) for span in drawn.spans}
    assert colours == {"#ff0000 on #00ff00", "#0000ff on #0000ff"}


def test_no_color_leaves_the_marks(root):
    text = on_terminal(root, "--key", "<b>3", NO_COLOR="1")

    assert "\x1b" not in text
    assert "✓ web        0.5200" in text


def test_a_long_text_is_cut_and_says_so(root):
    text = inspect(root, "--key", "<b>2")

    assert "words many … 21,501 more characters" in text
    assert max(map(len, text.splitlines())) < 700


def test_json_holds_the_texts_exactly_as_they_came(root):
    lines = inspect(root, "--where", "shard = '00000'", "--sort", "position", "--json").splitlines()

    samples = [json.loads(line) for line in lines]
    assert [sample["texts"][0]["text"] for sample in samples][:3] == [SCRIPT, ESCAPES, LONG]
    assert samples[4]["texts"][0] | {"itc": None} == {
        "source": "web",
        "text": "ein Hund auf der Wiese",
        "itm": pytest.approx(0.499),
        "itc": None,
        "kept": False,
        "reason": "low_itm",
    }
    assert all(line.isascii() for line in lines)


def test_a_failed_sample_shows_its_reason(root):
    text = inspect(root, "--failed", "--sort", "position")

    assert "  ! truncated: the file ends inside <b>it\n" in text
    assert "  ! too_many_pixels: is 99999 x 99999\n" in text
    assert text.count("\n\n") == 2


def test_an_image_that_cannot_be_shown_says_why(screen):
    assert "the shard is gone, has changed" in SGR.sub("", screen)


def test_why_an_image_is_not_there_is_said_once():
    error = "is not an image that can be read: 4 bytes, b'junk'"
    failed = card(status="not_an_image", error=error)
    console = Console(width=200, force_terminal=True)

    (shown,) = as_colours(console, [failed], {failed.place: b"junk"}, ImageLimits())

    assert SGR.sub("", shown).count("4 bytes") == 1
    assert "no image to show" in shown


def test_nothing_found_is_no_error(root):
    result = CliRunner().invoke(cli, ["inspect", root, "--key", "nowhere"])

    assert (result.exit_code, result.output) == (0, f"{root}: no sample meets this (3 of 3 shards complete)\n")


def test_a_run_of_which_nothing_is_committed_sends_to_status(tmp_path):
    run = new_run(tmp_path)

    output = CliRunner().invoke(cli, ["inspect", run.root, "--failed"]).output

    told = f"no shard is complete, nor any unit of one; capfilt status {run.root} tells why"
    assert output == f"{run.root}: {told}\n"


def test_a_reason_that_does_not_occur_is_answered_with_those_that_do(root):
    result = CliRunner().invoke(cli, ["inspect", root, "--failed", "--reason", "trunkated"])

    reasons = "duplicate, low_itm, too_long, too_many_pixels, too_short, truncated"
    told = f"no sample meets this (3 of 3 shards complete); reasons in this run: {reasons}"
    assert (result.exit_code, result.output) == (0, f"{root}: {told}\n")


def test_contradicting_filters_are_a_wrong_command_line(root):
    assert CliRunner().invoke(cli, ["inspect", root, "--kept", "--rejected"]).exit_code == 2


def test_a_key_that_is_no_text_is_a_wrong_command_line(root):
    result = CliRunner().invoke(cli, ["inspect", root, "--key", os.fsdecode(b"\xff")])

    assert (result.exit_code, "--key and --reason take UTF-8" in result.output) == (2, True)


@pytest.mark.parametrize("options", [["--limit", "9" * 40], ["--limit", str(2**63 - 1), "--sort", "best"]])
def test_a_number_that_the_engine_does_not_have_is_none_too_large(root, options):
    shown = inspect(root, "--json", *options)
    seeded = inspect(root, "--json", "--seed", "9" * 40, *options)

    assert sorted(shown.splitlines()) == sorted(seeded.splitlines())
    assert len(shown.splitlines()) == 24


@pytest.mark.parametrize("given", [["--kept"], ["--rejected"], ["--near-cut"], ["--disagree"], ["--source", "web"]])
def test_a_failed_sample_has_no_text_to_ask_for(root, given):
    result = CliRunner().invoke(cli, ["inspect", root, "--failed", *given])

    assert result.exit_code == 2
    assert f"--failed and {given[0]} exclude each other" in result.output


def test_a_sample_that_is_not_found_in_a_run_at_work_may_be_in_the_rest_of_it(tmp_path):
    shards = [Shard(id_, f"in/{id_}.tar", 1000, "d16e57", 1) for id_ in ("00000", "00001")]
    run = new_run(tmp_path, shards)
    complete(run, shards[0], [record(0)], [])

    told = CliRunner().invoke(cli, ["inspect", run.root, "--key", "key1"]).output

    assert told == f"{run.root}: no sample meets this (1 of 2 shards complete)\n"
