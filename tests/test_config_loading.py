"""What is read is what was written, and what is refused is told without its secrets."""

from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from capfilt.config import ExportConfig, Policy, dump, loads
from capfilt.config.loading import load_by
from capfilt.config.schema import Config, section_of
from capfilt.errors import ConfigError


def filled(kind: type[Config]) -> dict[str, object]:
    """Return values for the keys of a config that have no default."""
    needed = {name: field for name, field in kind.model_fields.items() if field.is_required()}
    values: dict[str, object] = {}
    for name, field in needed.items():
        section = section_of(field.annotation)
        values[name] = filled(section) if section else "x"
    return values


def test_a_nested_key_can_be_left_out_of_what_is_written():
    config = ExportConfig(run="a", policy=Policy(name="strict", web_itm=0.9))

    text = dump(config, without=["policy.name", "workers", "cluster.workers"])

    assert "name" not in yaml.safe_load(text)["policy"]
    assert loads(ExportConfig, text, "text") == config.model_copy(update={"policy": Policy(web_itm=0.9)})


def test_overrides_make_the_same_of_a_text_as_of_its_keys():
    by_hand = loads(ExportConfig, "{run: a, policy: {mix: best, web_itm: 0.9}, workers: 2}", "text")

    assert loads(ExportConfig, "run: a", "text", ["policy.mix=best", "policy.web_itm=0.9", "workers=2"]) == by_hand
    assert loads(ExportConfig, "", "text", ["run=a", "workers=1", "workers=2"]).workers == 2  # the last one wins


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("run: a\nrun: b", r"is not YAML: found 'run' twice in line 2, column 1"),
        ("{run: a, policy: {mix: both, mix: best}}", r"is not YAML: found 'mix' twice"),
        ("run: 2026-13-01", r"is not YAML: month must be in 1\.\.12"),
        ("workers: " + "9" * 5000, r"is not YAML: Exceeds the limit"),
        ("workers: !!int ''", "is not YAML: "),
        ("run: " + "[" * 3000 + "]" * 3000, "is not YAML: maximum recursion depth"),
        ("workers: '" + "x" * 1_000_000 + "'", r"workers: .*\(found 'x{199}\.\.\.\)"),
        (f"{BOMB}run: *i", r"run: .*\(found \[\[\[\.\.\.\], "),
        ("".join(f"k{i}: 1\n" for i in range(50)), r"text: and 31 problems more$"),
    ],
)
def test_whatever_a_config_holds_the_error_is_short(text, told):
    with pytest.raises(ConfigError, match=rf"(?s)^text: .*{told}") as raised:
        loads(ExportConfig, text, "text")
    assert len(str(raised.value)) < 5000


def test_a_value_that_is_cut_shows_no_credentials():
    signed = f"https://host/{'a' * 150}?X-Amz-Signature=hunter2&{'b' * 200}"
    with pytest.raises(ConfigError, match=r"workers: .*X-Amz-Signature=\*\*\*&b+\.\.\.") as told:
        loads(ExportConfig, f"run: a\nworkers: '{signed}'", "text")
    assert "hunter2" not in str(told.value)


def test_a_mapping_may_be_merged_into_others():
    values = "x: &x {mix: best, web_itm: 0.9}\ny: &y {<<: *x, web_itm: 0.8}\npolicy: {<<: *y, mix: both}\nrun: a"
    with pytest.raises(ConfigError) as told:
        loads(ExportConfig, values, "text")
    assert [line.split(": ")[1] for line in str(told.value).splitlines()] == ["x", "y"]  # unknown keys, and no more


def test_the_kind_follows_from_a_key(tmp_path):
    class Square(Config):
        shape: str
        side: int

    class Circle(Config):
        shape: str
        radius: int

    kinds: dict[str, type[Config]] = {"square": Square, "circle": Circle}
    path = Path(tmp_path, "shape.yaml")
    path.write_text("{shape: square, side: 3}")

    assert load_by("shape", kinds, path) == Square(shape="square", side=3)
    with pytest.raises(ConfigError, match=r"shape\.yaml: side: unknown key"):
        load_by("shape", kinds, path, ["shape=circle"])
    with pytest.raises(ConfigError, match=r"shape: input should be 'square' or 'circle' \(found 'cube'\)"):
        load_by("shape", kinds, path, ["shape=cube"])
