"""The dashboard and docs/monitoring.md speak of the metrics that there are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from metrics_page import samples
from service.metrics import Metrics

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "docker" / "grafana" / "heatquery.json").read_text(encoding="utf-8"))
OF_PROMETHEUS = {"instance", "job"}
"""Labels that Prometheus adds to what it scrapes."""


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """Every sample's name with its labels."""
    metrics = Metrics()
    metrics.request("/detect", "POST", 200, 0.1, 1000)
    metrics.rejected("queue-full")
    metrics.ready("toy", "1", "fp32", "cpu", "f")
    found: dict[str, set[str]] = {}
    for sample in samples(metrics.render("")[0]):
        found.setdefault(sample.partition("{")[0], set()).update(re.findall(r"\{(\w+)=", sample))
    return found


def expressions(node: Any) -> list[str]:
    """Every PromQL expression of a dashboard, those of its variables too."""
    if isinstance(node, list):
        return [found for item in node for found in expressions(item)]
    if isinstance(node, dict):
        own = [text for name in ("expr", "query") if isinstance(text := node.get(name), str)]
        return own + [found for item in node.values() for found in expressions(item)]
    return []


EXPRESSIONS = [text for text in expressions(DASHBOARD) if text != "prometheus"]


def metric_names(text: str) -> set[str]:
    """Names of metrics in a text."""
    return set(re.findall(r"\b(?:heatquery|process)_[a-z_]+\b", text))


def test_the_dashboard_asks_for_something() -> None:
    assert len(EXPRESSIONS) > 20


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_is_about_metrics_that_exist(expression: str, labels: dict[str, set[str]]) -> None:
    assert metric_names(expression)
    assert metric_names(expression) <= labels.keys()


@pytest.mark.parametrize("expression", [text for text in EXPRESSIONS if " by (" in text])
def test_every_expression_groups_by_labels_that_its_metric_has(expression: str, labels: dict[str, set[str]]) -> None:
    grouped = {name.strip() for group in re.findall(r" by \(([^)]*)\)", expression) for name in group.split(",")}
    for metric in metric_names(expression):
        assert grouped <= labels[metric] | OF_PROMETHEUS


def test_no_two_panels_of_the_dashboard_overlap() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))


def test_the_docs_list_every_metric_with_its_type_and_labels(labels: dict[str, set[str]]) -> None:
    page = Metrics().render("")[0].decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    expected = {name: kind for name, kind in kinds.items() if not name.endswith("_created")}
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `((?:heatquery|process)_\w+)` \| (\w+) \| ([^|]*)\|", text, re.MULTILINE)
    ours = {name: kind for name, kind in expected.items() if name.startswith("heatquery_")}
    assert {name: kind for name, kind, _ in rows if name.startswith("heatquery_")} == ours
    assert expected.keys() <= metric_names(text)
    for name, kind, listed in rows:
        sample = f"{name}_count" if kind == "histogram" else name
        assert set(re.findall(r"`(\w+)`", listed)) == labels[sample], name
