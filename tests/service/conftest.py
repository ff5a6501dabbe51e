import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.app import Service, create_app
from service.settings import Settings
from tests.bundles import write_tiny_bundle
from tests.service.process import environment


@dataclass(frozen=True)
class Client:
    """Requests to an app without a socket, from code that is not async."""

    app: FastAPI

    @property
    def service(self) -> Service:
        found = self.app.state.service
        assert isinstance(found, Service)
        return found

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def score(self, records: list[dict[str, Any]], query: str = "") -> httpx.Response:
        return self.post(f"/v1/models/pumps/score{query}", json={"records": records})

    def scrape(self) -> "Scrape":
        return Scrape(self.get("/metrics").text)


class Scrape:
    """The service's own metrics as Prometheus would keep them."""

    def __init__(self, text: str) -> None:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        self.series = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for sample in samples
            if sample.name.startswith("nelbo_")
        }

    def value(self, name: str, **labels: str) -> float:
        return self.series[name, frozenset(labels.items())]


ClientFactory = Callable[..., Client]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one tiny model, `pumps`; not to be changed."""
    root = tmp_path_factory.mktemp("models")
    write_tiny_bundle(root)
    return root


@pytest.fixture
def client_factory(models: Path) -> ClientFactory:
    def build(root: Path = models, *, load: bool = True, **settings: Any) -> Client:
        client = Client(create_app(Settings(models=root, **settings)))
        if load:
            client.service.live.load_all()
        return client

    return build


@pytest.fixture
def client(client_factory: ClientFactory) -> Client:
    return client_factory()


Start = Callable[..., tuple[subprocess.Popen[str], int]]


@pytest.fixture
def start(models: Path) -> Iterator[Start]:
    """Starts the service on a free port and waits until it listens; what is left over is killed."""
    processes: list[subprocess.Popen[str]] = []

    def started(**settings: object) -> tuple[subprocess.Popen[str], int]:
        env = environment(**{"MODELS": models, "PORT": 0, **settings})
        process = subprocess.Popen([sys.executable, "-m", "service"], env=env, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stderr is not None
        return process, int(json.loads(process.stderr.readline())["port"])

    yield started
    for process in processes:
        process.kill()
        process.communicate()
