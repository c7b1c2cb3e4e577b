"""The documentation tells the truth: what it names exists."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from capfilt.cli import cli
from capfilt.cli.options import job_kind
from capfilt.config import Config, Policy
from capfilt.policy import REASONS
from capfilt.query import COLUMNS
from capfilt.shards import parquet, rows
from capfilt.shards.grouping import IMAGE_SUFFIXES
from capfilt.stats import DIMENSIONS
from workers.events import What
from workers.faults import Cause
from workers.metrics import METRICS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
TRAINING = (ROOT / "docs" / "training.md").read_text()
LINES = re.findall(r"^\$ (.+)$", README + TRAINING, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("line", [line for line in LINES if "capfilt " in line])
def test_every_command_exists(line):
    command, *arguments = line.partition("capfilt ")[2].split()
    assert command in cli.commands
    for path in (a for a in arguments if a.startswith("configs/")):
        assert (ROOT / path).exists()


@pytest.mark.parametrize("line", [line for line in LINES if "--set" in line])
def test_every_key_exists(line):
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


def test_the_page_on_the_policy_has_every_reason_and_mix():
    page = (ROOT / "docs/deciding.md").read_text()
    mixes = get_args(Policy.model_fields["mix"].annotation)
    assert not [name for name in (*REASONS, *mixes, *Policy.model_fields) if f"`{name}`" not in page and name != "seed"]


def test_the_page_on_inputs_has_every_name_that_is_looked_for():
    page = (ROOT / "docs/inputs.md").read_text()
    names = {*rows._PATHS, *rows._TEXTS, *parquet._TEXTS, *parquet._JSONS}
    names |= {name for name in parquet._IMAGES if name not in IMAGE_SUFFIXES}
    assert not [name for name in names if f"`{name}`" not in page]


def test_every_status_on_the_page_on_inputs_is_given():
    code = "".join(path.read_text() for path in (ROOT / "capfilt").rglob("*.py"))
    known = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", (ROOT / "docs/inputs.md").read_text(), re.MULTILINE)
    statuses = {status for row in known for status in re.findall(r"\w+", row)}
    assert not [status for status in statuses if f'"{status}"' not in code]
    assert len(statuses) == 16


def table(page: str, benchmark: str) -> tuple[str, dict]:
    """Return a page of the documentation, and what the benchmark behind its table recorded."""
    results = ROOT / "benchmarks" / "results" / f"{benchmark}-zen4.json"
    return (ROOT / "docs" / page).read_text(), json.loads(results.read_text())


def test_the_table_of_calibration_is_that_of_its_benchmark():
    page, results = table("deciding.md", "calibration")
    for row in results["errors"][1:]:
        truth = row["false_accepts_in_truth"]
        cells = [
            *(f"{row['wished']:g}", f"{row['threshold']:.3f}", f"{row['false_accepts_of_controls']:.3f}"),
            f"{truth['share']:.3f} ({truth['low']:.3f} to {truth['high']:.3f})",
            *(f"{row['own_kept']:.0%}".replace("%", " %"), f"{row['best_threshold']:.3f}"),
            f"{row['own_kept_at_best']:.0%}".replace("%", " %"),
        ]
        assert f"| {' | '.join(cells)} |" in page


def test_the_table_of_look_alikes_is_that_of_its_benchmark():
    page, results = table("deciding.md", "look_alikes")
    found = {change: f"{100 * share:.1f} %" for change, share in results["found"].items()}
    cut = ", ".join(found.pop(f"{percent} % cut off each side") for percent in (1, 2, 4))
    for change, share in {**found, "1 %, 2 %, 4 % cut off each side": cut}.items():
        assert f"| {change.replace(', WebP', ', as WebP')} | {share} |" in page


def test_the_table_of_a_large_ledger_is_that_of_its_benchmark():
    page, results = table("query.md", "stats_scale")
    by = results["results"].pop("by")
    for name, row in results["results"].items():
        assert f"| `{name}` | {row['cpu_seconds']:g} | {row['mib']:,} |" in page
    assert f"takes {min(by.values()):.1f} to {max(by.values()):.1f} seconds" in page


def test_every_column_of_a_run_is_documented():
    page = (ROOT / "docs" / "query.md").read_text()
    for relation in COLUMNS.values():
        assert not [
            name
            for name, meaning in relation.items()
            if not re.search(rf"`{name}` \| \w+ \| {re.escape(meaning)} \|", page)
        ]
    assert not [name for name in DIMENSIONS if f"`{name}`" not in page]


def test_every_metric_and_event_is_documented():
    page = (ROOT / "docs" / "operations.md").read_text()
    for name, metric in METRICS.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert f"| `ray_{name}` | {metric.kind} |{f' {labels} ' if labels else ' '}| {metric.meaning} |" in page
    assert set(re.findall(r"ray_(capfilt_\w+)", page)) == set(METRICS)
    assert not [what for what in get_args(What) if what != "outage" and f"| `{what}` |" not in page]
    assert not [cause for cause in get_args(Cause) if f"`{cause}`" not in page]


def test_every_command_and_job_file_is_documented():
    told = README + TRAINING
    assert not [command for command in cli.commands if command != "config" and f"capfilt {command}" not in told]
    assert not [p.name for p in (ROOT / "configs").glob("*.yaml") if p.name not in told and p.name != "demo_long.yaml"]


def test_every_test_that_security_names_exists():
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    names = re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(names) > 20
    assert not [name for name in names if f"def {name}(" not in tests and not (ROOT / f"tests/{name}.py").exists()]
