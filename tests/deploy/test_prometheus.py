import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.app import create_app
from service.settings import Settings
from tests.bundles import odd_record, write_tiny_bundle
from tests.deploy.programs import program
from tests.service.conftest import Client

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"


def promtool(*arguments: str, text: str | None = None) -> tuple[int, str]:
    """Exit code and all output of promtool, run where the rules are."""
    command = [program("promtool", "apt-get install prometheus"), *arguments]
    found = subprocess.run(command, cwd=RULES, input=text, capture_output=True, text=True, timeout=60, check=False)
    return found.returncode, found.stdout + found.stderr


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_rules_are_sound() -> None:
    code, output = promtool("check", "rules", "--lint-fatal", "recording.yml", "alerts.yml")
    assert code == 0, output


def test_the_configuration_is_sound_and_finds_its_rules() -> None:
    code, output = promtool("check", "config", "--lint-fatal", "prometheus.yml")
    assert code == 0, output
    assert "SUCCESS: 2 rule files found" in output


def test_the_configuration_of_the_page_on_access_is_sound(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "access.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", page, re.DOTALL)
    (tmp_path / "key").write_text("a key")
    (tmp_path / "prometheus.yml").write_text(block.replace("/etc/prometheus/key", str(tmp_path / "key")))
    code, output = promtool("check", "config", "--lint-fatal", str(tmp_path / "prometheus.yml"))
    assert code == 0, output


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    code, output = promtool("test", "rules", "alerts_test.yml")
    assert code == 0, output


@pytest.mark.parametrize("alert", [alert["alert"] for alert in alerts()])
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alert: str) -> None:
    tests = yaml.safe_load((RULES / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == alert]
    assert {bool(case.get("exp_alerts")) for case in cases} == {True, False}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_each_alert_says_how_severe_it_is_and_which_page_helps(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^### (\w+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert alert["alert"] in headings
    assert anchor == alert["alert"].lower()


def test_the_page_on_alerts_has_no_alert_too_many() -> None:
    page = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (\w+)$", page, re.MULTILINE) == [alert["alert"] for alert in alerts()]


def test_the_live_metrics_are_as_prometheus_would_have_them(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    client = Client(create_app(Settings(models=tmp_path)))
    client.service.live.load_all()
    client.score([odd_record(), odd_record(rpm=None, valve="ajar"), odd_record(pressure="x")])
    client.get("/nothing")
    assert promtool("check", "metrics", text=client.get("/metrics").text) == (0, "")
