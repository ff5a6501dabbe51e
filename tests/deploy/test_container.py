"""What can be said of the container without building it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]


def stage(name: str) -> str:
    """The lines of a stage of the Dockerfile."""
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_a_plain_build_gives_the_service() -> None:
    assert re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)[-1] == "service"


def test_the_service_is_installed_without_what_only_training_needs() -> None:
    assert re.findall(r"requirements/(\w+)\.txt", stage("build-service")) == ["service"]
    assert re.findall(r"requirements/(\w+)\.txt", stage("build-training")) == ["training"]
    assert "TORCH" not in stage("build-service") + stage("service") + stage("run")


def installs() -> list[str]:
    """The options and requirements of each `pip install` of the Dockerfile."""
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    commands = [" ".join(command.split()) for line in lines for command in line.split("&&")]
    return [command.partition(" install ")[2] for command in commands if "/pip " in command and " install " in command]


def test_nothing_but_torch_is_installed_without_a_digest() -> None:
    locked = [
        found for found in installs() if "--no-deps --only-binary :all: --require-hashes -r requirements/" in found
    ]
    built_here = [found for found in installs() if found.endswith("--no-deps --no-index /dist/*.whl")]
    (other,) = [found for found in installs() if found not in locked + built_here]
    assert (len(locked), len(built_here)) == (3, 2)
    assert other.endswith("-c constraints.txt ${TORCH}")


def test_both_images_carry_their_bill_of_materials() -> None:
    for name in ("build-service", "build-training"):
        assert "-m supply.sbom /opt/nelbo/bin/python --output /opt/nelbo/sbom.cdx.json" in stage(name)
        reports = set(re.findall(r"--report (\S+)", stage(name)))
        assert reports == set(re.findall(r"(?<= )/\S+\.json", stage(name).partition("--reports")[2]))


def test_every_from_is_the_chosen_python_or_a_stage() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) <= {"${PYTHON_IMAGE}", *stages}


def test_the_entry_points_are_programs_and_not_shells() -> None:
    entry_points = [json.loads(line) for line in re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)]
    assert entry_points == [["nelbo"], ["python", "-P", "-m", "service"]]


def test_the_health_check_is_a_program_that_compiles() -> None:
    (found,) = re.findall(r"^HEALTHCHECK .*? CMD (.+)$", DOCKERFILE, re.MULTILINE)
    python, option, code = json.loads(found)
    assert (python, option) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")


def test_the_image_sets_no_setting_that_does_not_exist() -> None:
    names = set(re.findall(rf"\b{PREFIX}(\w+)=", DOCKERFILE))
    assert {name.lower() for name in names} <= set(Settings.model_fields)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_of_the_compose_file_is_hardened_and_bounded(name: str) -> None:
    found = SERVICES[name]
    assert (found["read_only"], found["cap_drop"], found["security_opt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert found["mem_limit"]
    assert all(port.startswith("${BIND:-127.0.0.1}:${") for port in found.get("ports", []))
    assert re.search(r":\$\{\w+_VERSION:-[^}]+\}$", found["image"])


def test_the_compose_file_holds_no_secret() -> None:
    secret = re.findall(r"^\s*\w*(?:PASSWORD|SECRET|TOKEN|KEY)\w*: *(.*)$", COMPOSE, re.MULTILINE)
    assert secret == ["/keys/keys.json", "/keys/keys.json", "${GRAFANA_ADMIN_PASSWORD:-}"]


def test_the_compose_file_shows_how_to_make_a_key_and_only_that_command_writes_it() -> None:
    assert "# docker compose run --rm keys new --scope score" in COMPOSE
    service, keys = SERVICES["service"], SERVICES["keys"]
    assert (keys["entrypoint"], keys["profiles"], keys["network_mode"]) == (["nelbo", "keys"], ["keys"], "none")
    assert (keys["image"], keys["environment"]["NELBO_KEYS"]) == (
        service["image"],
        service["environment"]["NELBO_KEYS"],
    )
    assert ("keys:/keys:ro" in service["volumes"], keys["volumes"]) == (True, ["keys:/keys"])
    assert "install -d -m 700 -o 10001 -g 10001 /keys" in stage("run")


def test_the_compose_file_sets_no_setting_that_does_not_exist_and_needs_keys() -> None:
    names = {name.removeprefix(PREFIX).lower() for name in SERVICES["service"]["environment"]}
    assert names <= set(Settings.model_fields)
    assert "access" not in names
    assert re.findall(r"NELBO_HOST=(\S+)", stage("service")) == ["0.0.0.0"]  # noqa: S104  # closed without a word


def test_only_the_training_writes_models_and_only_when_asked() -> None:
    assert "models:/models:ro" in SERVICES["service"]["volumes"]
    assert "models:/models" in SERVICES["training"]["volumes"]
    assert SERVICES["training"]["profiles"] == ["training"]


def test_every_file_that_the_compose_file_mounts_is_there() -> None:
    mounts = [mount.split(":")[0] for found in SERVICES.values() for mount in found["volumes"]]
    assert [mount for mount in mounts if mount.startswith("./") and not (ROOT / mount).exists()] == []
