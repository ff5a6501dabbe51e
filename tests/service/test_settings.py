import os
import re
from pathlib import Path

import pytest

from service.settings import OF_COMPOSE, Settings, SettingsError, read_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.upper().startswith("NELBO_")]:
        monkeypatch.delenv(name)


def test_settings_have_defaults_that_listen_on_this_machine_alone() -> None:
    assert read_settings() == Settings(
        models=Path("models"),
        host="127.0.0.1",
        port=8000,
        max_body_bytes=16_777_216,
        max_records=10_000,
        log_level="info",
    )


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NELBO_MODELS", str(tmp_path))
    monkeypatch.setenv("NELBO_MAX_RECORDS", "7")
    assert read_settings().models == tmp_path
    assert read_settings().max_records == 7


def test_all_wrong_settings_are_listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NELBO_PORT", "http")
    monkeypatch.setenv("NELBO_LOG_LEVEL", "loud")
    monkeypatch.setenv("NELBO_MAX_BODY_BYTES", "0")
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert str(caught.value).splitlines() == [
        "NELBO_PORT: expected a whole number from 0 to 65535, got 'http'",
        "NELBO_MAX_BODY_BYTES: expected a whole number of bytes, at least 1, got '0'",
        "NELBO_LOG_LEVEL: expected one of debug, info, warning, error, got 'loud'",
    ]


@pytest.mark.parametrize("name", ["PORT", "HOST", "MAX_BODY_BYTES", "MAX_RECORDS", "LOG_LEVEL"])
def test_an_empty_setting_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"NELBO_{name}", "")
    with pytest.raises(SettingsError, match=f"^NELBO_{name}: expected .*, got ''$"):
        read_settings()


WRONG = [
    *((name, "") for name in ("PORT", "HOST", "MAX_BODY_BYTES", "MAX_RECORDS", "MAX_QUEUED_RECORDS", "LOG_LEVEL")),
    *(("PORT", value) for value in ("http", "-1", "65536", "80 81", "8000.5", "0x50", "true", "tcp://10.0.0.1:8000")),
    *(("MAX_BODY_BYTES", value) for value in ("0", "-1", "16MiB", "1e6", "inf", "nan")),
    *(("MAX_RECORDS", value) for value in ("0", "-5", "many", "10,000", "None", "[1]")),
    *(("MAX_QUEUED_RECORDS", value) for value in ("0", "-1", "unlimited", "{}")),
    *(("LOG_LEVEL", value) for value in ("loud", "INFO", "10", "info,debug")),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_that_cannot_hold_is_refused_by_its_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"NELBO_{name}", value)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"NELBO_{name}: expected ")
    assert f"got {value!r}" in line


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_no_setting_may_be_empty(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"NELBO_{name.upper()}", "")
    with pytest.raises(SettingsError, match=f"^NELBO_{name.upper()}: expected "):
        read_settings()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MAX_RECORD", "MAX_RECORDS"),
        ("MAXRECORDS", "MAX_RECORDS"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("LOG-LEVEL", "LOG_LEVEL"),
        ("PROT", "PORT"),
        ("MODEL", "MODELS"),
        ("MAX_BODY_BYTE", "MAX_BODY_BYTES"),
        ("max_queued_record", "MAX_QUEUED_RECORDS"),
    ],
)
def test_a_name_that_is_no_setting_is_refused_with_the_nearest_one_and_without_its_value(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"NELBO_{name}", "s3cret")
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert str(caught.value) == f"NELBO_{name.upper()}: there is no such setting; is NELBO_{meant} meant?"


def test_a_name_like_no_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NELBO_XYZ", "1")
    with pytest.raises(SettingsError, match=r"^NELBO_XYZ: there is no such setting$"):
        read_settings()


def test_what_kubernetes_and_compose_set_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    links = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "80", "SERVICE_PORT_HTTP": "80", "CANARY_SERVICE_HOST": "a"}
    links |= {"PORT_80_TCP": "tcp://10.0.0.1:80", "PORT_80_TCP_PROTO": "tcp", "PORT_80_TCP_ADDR": "10.0.0.1"}
    for name in {*links, *OF_COMPOSE}:
        monkeypatch.setenv(f"NELBO_{name}", links.get(name, "x"))
    assert read_settings() == Settings()


def test_the_names_that_are_passed_over_are_those_of_the_compose_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{NELBO_(\w+)", text))
    assert used - {name.upper() for name in Settings.model_fields} == OF_COMPOSE


def test_the_link_of_a_service_of_our_name_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NELBO_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(SettingsError, match="which Kubernetes sets for a Service of this name; enableServiceLinks"):
        read_settings()


def test_models_that_are_no_folder_are_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, why in (("file", "which is a file"), ("none", "which is not there")):
        monkeypatch.setenv("NELBO_MODELS", str(tmp_path / name))
        with pytest.raises(SettingsError) as caught:
            read_settings()
        assert str(caught.value) == f"NELBO_MODELS: expected a folder, got '{tmp_path / name}', {why}"


def test_a_long_value_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NELBO_LOG_LEVEL", "x" * 10_000)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert len(str(caught.value)) < 200


def test_every_kind_of_problem_is_listed_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys, trust = tmp_path / "keys.json", tmp_path / "trust.json"
    keys.write_text("{")
    trust.write_text('{"keys": {}, "minimum_versions": {"pumps": 1}}')
    for name, value in (("PORT", "x"), ("MAX_RECORDS", "0"), ("MODELS", str(tmp_path / "none")), ("MODLES", "y")):
        monkeypatch.setenv(f"NELBO_{name}", value)
    monkeypatch.setenv("NELBO_KEYS", str(keys))
    monkeypatch.setenv("NELBO_TRUST", str(trust))
    with pytest.raises(SettingsError) as caught:
        read_settings()
    names = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    of_files = ["NELBO_KEYS", "NELBO_TRUST", "NELBO_TRUST"]
    assert names == ["NELBO_PORT", "NELBO_MAX_RECORDS", "NELBO_MODELS", *of_files, "NELBO_MODLES"]


def test_a_file_of_keys_need_not_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NELBO_KEYS", str(tmp_path / "none" / "keys.json"))
    assert read_settings().keys == tmp_path / "none" / "keys.json"
