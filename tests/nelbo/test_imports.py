import subprocess
import sys

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


def test_public_names_are_these() -> None:
    assert sorted(nelbo.__all__) == [
        *("BodyError", "Bundle", "BundleError", "CalibrationError", "Column", "NelboError", "RecordError"),
        *("Schema", "SchemaError", "Scored", "Scorer", "Store", "StoreError", "TableError", "read_bundle"),
    ]
    assert all(hasattr(nelbo, name) for name in nelbo.__all__)
