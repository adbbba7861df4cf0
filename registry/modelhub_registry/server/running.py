"""Running the server, with uvicorn."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from modelhub.errors import UsageError
from modelhub_registry.catalog import Registry
from modelhub_registry.server.app import create_app
from modelhub_registry.server.guard import Options, Served

__all__ = ["listening", "run", "server"]


def run(registry: Registry, options: Options, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until interrupted; `ready` is told the address when requests are answered."""
    try:
        listener = listening(host, port)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None
    with listener:
        name = f"[{host}]" if ":" in host else host
        ready(f"http://{name}:{listener.getsockname()[1]}")
        server(registry, options).run(sockets=[listener])


def server(registry: Registry, options: Options) -> uvicorn.Server:
    """The server, to be given a listening socket."""
    config = uvicorn.Config(
        create_app(Served(registry), options),
        log_level="warning",
        server_header=False,
        date_header=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def listening(host: str, port: int) -> socket.socket:
    """A listening socket whose connections send at once what they have (TCP_NODELAY, which they inherit).

    uvicorn sends head and body of an answer in two pieces; without it, the second would wait for the other side's
    delayed acknowledgement of the first, 40 ms.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(256)
    except OSError:
        listener.close()
        raise
    return listener
