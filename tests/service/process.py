"""What tests of a real process share."""

import os
import socket
import time
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]


def environment(**settings: object) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | {f"NELBO_{name}": str(value) for name, value in settings.items()}


def ask(port: int, path: str, body: object = None) -> Any:
    """The decoded answer; asks again while the models are still being loaded."""
    for _ in range(300):
        found = httpx.request("POST" if body else "GET", f"http://127.0.0.1:{port}{path}", json=body, timeout=10)
        if found.status_code != 503:
            return found.raise_for_status().json()
        time.sleep(0.1)
    raise AssertionError("the service did not become ready in 30 s")


def raw(port: int, *parts: bytes) -> bytes:
    """What comes back for bytes on the wire, until the service closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
        return b"".join(iter(lambda: connection.recv(65536), b""))


HEAD = b"POST /v1/models/pumps/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
