import subprocess
import sys
from pathlib import Path

import pytest

from nelbo.lock import locked

HOLD = """
import sys
from pathlib import Path
from nelbo.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_at_a_time_in_one_process(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(TimeoutError, match="another process is changing it"), locked(tmp_path, 0.02):
        pass
    with locked(tmp_path, 0.02):
        pass


def test_a_folder_is_held_against_other_processes_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            with pytest.raises(TimeoutError), locked(tmp_path, 0.02):
                pass
        finally:
            process.kill()
    with locked(tmp_path, 5.0):
        pass


def test_a_folder_that_is_not_there_cannot_be_held(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none"):
        pass


def test_a_lock_that_is_a_link_makes_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "pumps").mkdir()
    (tmp_path / "pumps" / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "pumps"):
        pass
    assert not (tmp_path / "elsewhere").exists()
