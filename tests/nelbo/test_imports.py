import os
import subprocess
import sys
from pathlib import Path

import nelbo

HEAVY = ["torch", "pyarrow", "scipy", "sklearn", "onnx", "pandas", "rich", "typer"]


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_core_and_service_load_nothing_heavy() -> None:
    assert loaded_by("import nelbo").isdisjoint({*HEAVY, "fastapi", "starlette", "uvicorn", "httpx"})
    assert loaded_by("import nelbo, service.app, service.answer, service.settings").isdisjoint(HEAVY)


def test_command_line_starts_without_what_its_commands_need() -> None:
    assert loaded_by("import nelbo.cli").isdisjoint({"torch", "pyarrow", "scipy", "sklearn", "fastapi"})
    assert loaded_by("import training.cli").isdisjoint({"torch", "pyarrow", "sklearn", "onnx"})


def test_onnxruntime_keeps_no_device_id_and_sends_no_usage_data(tmp_path: Path) -> None:
    switches = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in switches}
    code = "import nelbo.session; nelbo.session.ort.get_available_providers()"
    subprocess.run([sys.executable, "-c", code], env=environment | {"HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_public_names_are_these() -> None:
    assert sorted(nelbo.__all__) == [
        *("BodyError", "Bundle", "BundleError", "CalibrationError", "Column", "NelboError", "RecordError"),
        *("Schema", "SchemaError", "Scored", "Scorer", "Store", "StoreError", "TableError", "read_bundle"),
    ]
    assert all(hasattr(nelbo, name) for name in nelbo.__all__)
