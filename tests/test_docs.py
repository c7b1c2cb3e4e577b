"""The documentation tells the truth: what it names exists."""

import re
from pathlib import Path

import pytest

from capfilt.cli import cli
from capfilt.cli_options import job_kind
from capfilt.config import Config
from capfilt.query import COLUMNS
from capfilt.stats import DIMENSIONS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LINES = re.findall(r"^\$ (.+)$", README, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("line", [line for line in LINES if "capfilt " in line])
def test_every_command_of_the_readme_exists(line):
    command, *arguments = line.partition("capfilt ")[2].split()
    assert command in cli.commands
    for path in (a for a in arguments if a.startswith("configs/")):
        assert (ROOT / path).exists()


@pytest.mark.parametrize("line", [line for line in LINES if "--set" in line])
def test_every_key_of_the_readme_exists(line):
    command = line.partition("capfilt ")[2].split()[0]
    kind: type[Config] = job_kind("bootstrap" if command == "submit" else command)
    for key in re.findall(r"--set ([\w.]+)=", line):
        section: object = kind
        for part in key.split("."):
            assert isinstance(section, type)
            assert part in section.model_fields, key  # type: ignore[attr-defined]
            section = section.model_fields[part].annotation  # type: ignore[attr-defined]


def test_every_make_target_of_the_readme_exists():
    targets = re.findall(r"^\$ make (\w+)$", README, re.MULTILINE)
    assert targets == ["demo", "test"]
    assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)


def test_every_column_of_a_run_is_documented():
    page = (ROOT / "docs" / "query.md").read_text()
    for relation in COLUMNS.values():
        assert not [
            name
            for name, meaning in relation.items()
            if not re.search(rf"`{name}` \| \w+ \| {re.escape(meaning)} \|", page)
        ]
    assert not [name for name in DIMENSIONS if f"`{name}`" not in page]


def test_every_command_and_job_file_is_documented():
    assert not [command for command in cli.commands if command != "config" and f"capfilt {command}" not in README]
    assert not [
        p.name for p in (ROOT / "configs").glob("*.yaml") if p.name not in README and p.name != "demo_long.yaml"
    ]


def test_every_test_that_security_names_exists():
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    names = re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(names) > 20
    assert not [name for name in names if f"def {name}(" not in tests and not (ROOT / f"tests/{name}.py").exists()]
