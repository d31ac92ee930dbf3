"""A TCP connection to a port of a pod, through the API server (as `kubectl port-forward`, over a websocket).

Each message's first byte says which channel it is for: 0 the connection's bytes, 1 errors; the first message
of each holds the port's number alone. (The official client's `portforward` drops what it has received and not
yet handed on when the far end closes.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from launcher.errors import ClusterError
from launcher.kube import Kube

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1


class Tunnel:
    """One connection. One thread may send while another receives."""

    def __init__(self, websocket: Any, where: str) -> None:
        self._websocket, self._where = websocket, where

    @classmethod
    def open(cls, kube: Kube, pod: str, port: int) -> Tunnel:
        """Raises KubeError where it is refused or the pod is gone."""
        path = f"{kube.path('Pod', pod)}/portforward?ports={port}"
        return cls(kube.websocket(path, _PROTOCOL), f"pod {pod}, port {port}")

    def send(self, data: bytes) -> None:
        """Raises OSError once the connection is gone."""
        from websocket import WebSocketException

        try:
            self._websocket.send_binary(bytes([_DATA]) + data)
        except WebSocketException as error:
            raise BrokenPipeError(str(error)) from error

    def received(self) -> Iterator[bytes]:
        """The far end's bytes until it closes. Raises ClusterError where nothing listens there."""
        from websocket import WebSocketException

        begun: set[int] = set()
        while True:
            try:
                message = self._websocket.recv()
            except (WebSocketException, OSError):
                return
            if not message:
                return
            channel, data = message[0], message[1:]
            if channel not in begun:  # the port's number
                begun.add(channel)
            elif channel == _ERROR:
                raise ClusterError(self._where, data.decode(errors="replace").strip(), "try again")
            else:
                yield data

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._websocket.close(timeout=1)
