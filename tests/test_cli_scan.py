"""The command scan, as it is typed."""

import json

from click.testing import CliRunner, Result
from fakes import picture, write_shard

from capfilt.cli import cli


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

    assert result.output.endswith("a bootstrap scores 1 of 2 samples (50.0 %)\nit fails 1 not_an_image\n")


def test_limits_can_be_set_without_a_file(tmp_path):
    shard = write_shard(tmp_path / "00000.tar", [("red", "a")])

    result = capfilt("scan", shard, "--workers", 1, "--set", "images.min_side=100", "--json")

    assert json.loads(result.output)["statuses"] == {"bad_shape": 1}


def test_nothing_to_look_at_is_a_wrong_command_line():
    result = capfilt("scan")

    assert result.exit_code == 2
    assert "give INPUTS, or --config FILE" in result.output
