"""The dashboard's panels and queries, with Grafana's variables filled in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboard.json"


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: PromQL, with variables.
        legend: how its series are called, with labels in double braces.
    """

    expression: str
    legend: str

    def filled(self, **variables: str) -> str:
        """The expression as Grafana would send it."""
        found = self.expression
        for name, value in variables.items():
            found = found.replace(f"${name}", value)
        return found

    def name(self, labels: Mapping[str, str]) -> str:
        """What the legend says for a series."""
        found = self.legend
        for label, value in labels.items():
            found = found.replace("{{" + label + "}}", value)
        return found


@dataclass(frozen=True)
class Panel:
    """A panel, or the heading of a row of panels, which has no queries.

    Attributes:
        title: of the panel.
        kind: "timeseries", "stat", "heatmap", "table" or "row".
        description: what healthy looks like.
        unit: Grafana's name for it.
        position: "x", "y", "w" and "h" on a grid of 24 columns.
        queries: of the panel.
        raw: everything else.
    """

    title: str
    kind: str
    description: str
    unit: str
    position: Mapping[str, int]
    queries: tuple[Query, ...]
    raw: Mapping[str, Any]


def read_panels(dashboard: Path = DASHBOARD) -> list[Panel]:
    """The panels in the order in which they are read."""
    return [_panel(raw) for raw in json.loads(dashboard.read_text(encoding="utf-8"))["panels"]]


def _panel(raw: dict[str, Any]) -> Panel:
    return Panel(
        title=raw["title"],
        kind=raw["type"],
        description=raw.get("description", ""),
        unit=raw.get("fieldConfig", {}).get("defaults", {}).get("unit", ""),
        position=raw["gridPos"],
        queries=tuple(Query(target["expr"], target["legendFormat"]) for target in raw.get("targets", ())),
        raw=raw,
    )
