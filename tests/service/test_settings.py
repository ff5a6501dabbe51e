from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, read_settings


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
