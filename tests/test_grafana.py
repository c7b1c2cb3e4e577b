"""The dashboard queries what the code exports, and all of it."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from workers.metrics import METRICS

DASHBOARD = json.loads((Path(__file__).parent.parent / "docs/grafana/capfilt.json").read_text())
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
BY_RAY = {"NodeAddress", "WorkerId"}  # labels that Ray itself adds


def metrics_of(query: str) -> set[str]:
    return set(re.findall(r"ray_(capfilt_\w+)", query))


def test_every_metric_that_is_drawn_is_exported_and_every_one_exported_is_drawn():
    assert set().union(*map(metrics_of, QUERIES.values())) == set(METRICS)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_is_one_of_prometheus_over_labels_that_its_metrics_have(query):
    promql_parser.parse(query)

    labels = {label for metric in metrics_of(query) for label in METRICS[metric].labels} | {"run"}
    groups = {name.strip() for group in re.findall(r"by \((.*?)\)", query) for name in group.split(",")}
    assert groups <= labels | BY_RAY
    selectors = re.findall(r"ray_(capfilt_\w+)\{(.*?)\}", query)
    assert len(selectors) == query.count("ray_capfilt_")
    for metric, selector in selectors:
        names = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", selector)
        assert names[0] == "run"
        assert set(names[1:]) <= set(METRICS[metric].labels)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_only_counters_are_drawn_as_rates(query):
    for name in re.findall(r"(?:rate|increase)\(ray_(capfilt_\w+)\{", query):
        assert METRICS[name].kind == "counter"


def test_what_happens_once_is_drawn_as_a_count():
    """A series that begins at one has no increase, so a first failure would not show."""
    for query in QUERIES.values():
        if "failed_attempts" in query or 'status!="ok"' in query:
            assert "increase(" not in query


def test_a_legend_names_only_labels_that_its_query_leaves():
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            left = {name.strip() for group in re.findall(r"by \((.*?)\)", target["expr"]) for name in group.split(",")}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left, panel["title"]


def test_values_of_labels_that_are_drawn_apart_are_ones_that_occur():
    """Each regular expression of the dashboard picks states, stages and extents by name."""
    for query in QUERIES.values():
        for metric, selector in re.findall(r"ray_(capfilt_\w+)\{(.*?)\}", query):
            for name, values in re.findall(r"(state|stage|extent)[=!~]+\"(.*?)\"", selector):
                for value in values.split("|"):
                    assert re.search(rf"\b{value}\b", METRICS[metric].meaning), (name, value)


def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    at = panel["gridPos"]
    return {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}


def test_panels_have_ids_of_their_own_and_places_that_do_not_overlap():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    assert not [(a["title"], b["title"]) for a, b in combinations(panels, 2) if cells(a) & cells(b)]


def test_the_dashboard_asks_for_its_data_source_and_lists_the_runs():
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}

    assert variables["datasource"]["query"] == "prometheus"
    assert variables["run"]["query"]["query"] == "label_values(ray_capfilt_samples_total, run)"
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in DASHBOARD["panels"])
