"""What a process serves with once it may: the app, its connections, the server."""

import asyncio
import socket
from typing import cast

import uvicorn

from service.app import Service, create_app
from service.connections import IDLE_S, Connections
from service.lane import Lane
from service.memory import collect_seldom
from service.server import STOP_S, Server, handles


def serve(service: Service, listener: socket.socket) -> None:
    """Serves until a signal stops it."""
    settings, capacity = service.settings, service.capacity
    lane = Lane(create_app(service))
    connections = Connections(
        lane,
        service.metrics.reject,
        max_connections=capacity.max_connections,
        deadline_s=settings.request_deadline_s,
        max_unread_bytes=capacity.max_bytes,
    )
    service.metrics.watch_connections(lambda: len(connections))
    config = uvicorn.Config(
        lane,
        loop="auto",
        http=cast(type[asyncio.Protocol], connections.protocol),  # which is called as a class is
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=STOP_S,
    )
    collect_seldom()
    Server(config, connections, service.live, settings.drains_for_s).run(sockets=handles(listener))
