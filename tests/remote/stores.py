"""A real S3 server on loopback, and a proxy that makes it flaky."""

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from urllib.error import URLError
from urllib.request import urlopen

BUCKET = "bucket"

DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code>'
    b"<Message>Access Denied</Message></Error>"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port: int = bound.getsockname()[1]
    return port


@contextlib.contextmanager
def s3_server() -> Iterator[int]:
    """Serve S3 on a port until the end."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", f"{port}"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            for _ in range(240):
                try:
                    urlopen(f"http://127.0.0.1:{port}/moto-api/").close()
                    break
                except URLError:
                    time.sleep(0.25)
            yield port
        finally:
            server.kill()


class Proxy:
    """Passes connections on to a port, or mistreats them.

    Attributes:
        port: where it listens.
        requests: first lines of what was asked, as they came.
    """

    def __init__(self, target: int) -> None:
        self._target, self._mood = target, "well"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[str] = []
        self._open: set[socket.socket] = set()
        self._count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def be(self, mood: str) -> None:
        """Change how connections are treated, those that are open included.

        Args:
            mood: `well`; `down`: closed at once; `busy`: answered by 503; `denied`:
                by 403; `read-only`: by 403 where they would change something; `slow`:
                passed on late; `hung`: never answered; `shaky`: each second one is
                closed as soon as something has been sent.
        """
        self._mood = mood
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.be("down")
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._count += 1
        mood = self._mood
        if mood == "shaky":
            mood = ("well", "broken")[self._count % 2]
        with client, contextlib.suppress(OSError):
            self._open.add(client)
            if mood in ("busy", "denied"):
                _answer(client, client.recv(1 << 16), denied=mood == "denied")
            elif mood == "hung":
                while client.recv(1 << 16):
                    pass
            elif mood == "broken":
                client.recv(1 << 12)
            elif mood != "down":
                with socket.create_connection(("127.0.0.1", self._target)) as server:
                    self._open.add(server)
                    back = threading.Thread(target=_pump, args=[server, client])
                    back.start()
                    self._forward(client, server, mood)
                    back.join()
                    self._open.discard(server)
        self._open.discard(client)

    def _forward(self, client: socket.socket, server: socket.socket, mood: str) -> None:
        while data := client.recv(1 << 16):
            line = data.partition(b"\r\n")[0]
            if line.endswith(b" HTTP/1.1"):
                self.requests.append(line.decode().removesuffix(" HTTP/1.1"))
                if mood == "read-only" and not line.startswith((b"GET", b"HEAD")):
                    _answer(client, data, denied=True)
                    break
            if mood == "slow":
                time.sleep(0.02)
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _answer(client: socket.socket, asked: bytes, *, denied: bool) -> None:
    """Read a request to its end, of which something has been read; refuse it."""
    while b"\r\n\r\n" not in asked:
        asked += client.recv(1 << 16)
    head, _, body = asked.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    if re.search(b"expect: *100", head, re.IGNORECASE):
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while length and len(body) < int(length[1]):
        body += client.recv(1 << 16)
    says = DENIED if denied else b""
    status = b"403 Forbidden" if denied else b"503 Service Unavailable"
    client.sendall(
        b"HTTP/1.1 %b\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n"
        b"Connection: close\r\n\r\n%b"
        % (status, len(says), b"" if head.startswith(b"HEAD") else says)
    )
    client.shutdown(socket.SHUT_RDWR)
