"""A real Prometheus that scrapes a service, with this project's rules."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

RULES = Path(__file__).parents[1] / "deploy" / "prometheus"
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Prometheus:
    """One that answers.

    Attributes:
        url: of its root.
    """

    url: str

    def api(self, path: str, **parameters: Any) -> Any:
        """What its API says.

        Raises:
            ValueError: it refuses the query; the text is its own.
        """
        found = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30).json()
        if found["status"] != "success":
            raise ValueError(found["error"])
        return found["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        found: list[dict[str, Any]] = self.api("query", query=expression)["result"]
        return found

    def query_range(self, expression: str, seconds: float, step: float) -> list[dict[str, Any]]:
        """The series of the last seconds."""
        end = time.time()
        span = {"start": end - seconds, "end": end, "step": step}
        found: list[dict[str, Any]] = self.api("query_range", query=expression, **span)["result"]
        return found


@contextmanager
def watching(url: str, folder: Path, program: str = "prometheus", *, key: Path | None = None) -> Iterator[Prometheus]:
    """Starts a Prometheus that scrapes each second and evaluates the rules as often; stops it in the end.

    Args:
        url: of the service.
        folder: empty, for its files.
        program: Prometheus's own.
        key: file of the API key that it sends; None for none.
    """
    config = yaml.safe_load((RULES / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [url.removeprefix("http://")]}]
    if key is not None:
        config["scrape_configs"][0]["authorization"] = {"credentials_file": str(key)}
    for name in config["rule_files"]:
        shutil.copy(RULES / name, folder / name)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    address = f"127.0.0.1:{_free_port()}"
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    options += [f"--web.listen-address={address}", "--log.level=warn"]
    process = subprocess.Popen([program, *options], stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_ready(address, process)
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.communicate(timeout=_PATIENCE_S)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def _wait_until_ready(address: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"http://{address}/-/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    process.kill()
    raise TimeoutError(f"Prometheus is not ready: {process.communicate()[1]}")
