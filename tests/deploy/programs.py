import os
import shutil

import pytest


def program(name: str, how: str) -> str:
    """The path of a program that pip does not install; a test without it is skipped, in CI it fails."""
    found = shutil.which(name)
    if found is not None:
        return found
    missing = f"{name} is not installed; on Debian: {how}"
    if os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(missing)
    pytest.skip(missing)
