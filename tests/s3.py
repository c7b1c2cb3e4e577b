"""A real S3 server (moto's) on loopback, behind a proxy that counts requests and, when told to, misbehaves.

The proxy does what networks and stores do: it turns requests away, closes connections before and after a request was
carried out, cuts answers, shortens them, and is slow.
"""

import http.client
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from moto.server import ThreadedMotoServer

BUCKET = "bucket"
FAULTS = ("busy", "broken", "refused", "lost", "cut", "short", "slow")
"""503 SlowDown; 500; closed unheard; carried out, then closed; half an answer; half an answer that says it is whole;
0.2 s late."""

_OWN = ("connection", "content-length", "date", "expect", "server", "transfer-encoding")  # headers of each way
_REFUSALS = {"busy": (503, "SlowDown"), "broken": (500, "InternalError")}
_REFUSALS |= {"token": (400, "InvalidToken"), "garbled": (400, "BadDigest"), "forbidden": (403, "AccessDenied")}


@dataclass(frozen=True)
class Seen:
    """A request, and what came back."""

    method: str
    path: str  # with its query
    range: str
    bytes: int  # of the answer
    fault: str = ""


@dataclass
class Server:
    """The proxy's address, what it saw, and how it misbehaves."""

    url: str
    requests: list[Seen] = field(default_factory=list)
    faults: Sequence[str] = ()
    rate: float = 0.0
    only: str = ""  # misbehave at requests alone whose method and path hold this
    upstream: tuple[str, int] = ("", 0)
    page: int = 0  # most names in an answer to a listing; 0: the server's own 1000
    dice: random.Random = field(default_factory=random.Random)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def misbehaving(self, *faults: str, rate: float = 1.0, only: str = "", seed: int = 0) -> Iterator[None]:
        """Misbehave at a share of the requests."""
        self.faults, self.rate, self.only, self.dice = faults, rate, only, random.Random(seed)
        try:
            yield
        finally:
            self.faults = ()

    @contextmanager
    def counting(self) -> Iterator[list[Seen]]:
        """Give the requests of a block, as they come in."""
        self.requests = []
        yield self.requests

    @contextmanager
    def small_pages(self, names: int) -> Iterator[None]:
        """Answer listings with so many names at most, as a store does that holds thousands."""
        self.page = names
        try:
            yield
        finally:
            self.page = 0

    def ask_directly(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Return what the server itself answers, not counted and without a fault."""
        return self.pass_on(method, path, body, dict(headers or {}))[2]

    def pass_on(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return status, headers and body of the server's answer."""
        if self.page and "list-type=2" in path:
            path += f"&max-keys={self.page}"
        connection = http.client.HTTPConnection(*self.upstream)
        connection.request(method, path, body, headers | {"Content-Length": str(len(body))})
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response.status, response.getheaders(), answer

    def choose(self, method: str, path: str) -> str:
        """Return the fault that a request meets, or nothing."""
        with self.lock:
            if not self.faults or self.only not in f"{method} {path}" or self.dice.random() >= self.rate:
                return ""
            return self.dice.choice(self.faults)


@contextmanager
def serve() -> Iterator[Server]:
    """Start the server with an empty bucket, and the proxy before it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    proxy.daemon_threads = True
    server = Server(f"http://127.0.0.1:{proxy.server_address[1]}", upstream=(host, port))
    proxy.server = server  # type: ignore[attr-defined]
    threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    server.ask_directly("PUT", f"/{BUCKET}")
    try:
        yield server
    finally:
        proxy.shutdown()
        moto.stop()


class _Proxy(BaseHTTPRequestHandler):
    """Passes a request on, and its answer back."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_any(self) -> None:
        state: Server = self.server.server  # type: ignore[attr-defined]
        body = self._body()
        fault = state.choose(self.command, self.path)
        status, headers, answer = 0, [], b""
        if fault in _REFUSALS:
            status, code = _REFUSALS[fault]
            answer = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        elif fault != "refused":
            headers = [(name, value) for name, value in self.headers.items() if name.lower() not in _OWN]
            status, headers, answer = state.pass_on(self.command, self.path, body, dict(headers))
        with state.lock:
            state.requests.append(Seen(self.command, self.path, self.headers.get("Range", ""), len(answer), fault))
        if fault == "slow":
            time.sleep(0.2)
        self._answer(fault, status, headers, answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def _body(self) -> bytes:
        """Return the request's body; the expectation of a go-ahead is met by http.server before."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while length := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(length)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # checksums behind the last chunk
        return data

    def _answer(self, fault: str, status: int, headers: list[tuple[str, str]], answer: bytes) -> None:
        if fault in ("refused", "lost"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        sent = answer[: len(answer) // 2] if fault in ("cut", "short") else answer
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _OWN or (self.command == "HEAD" and name.lower() == "content-length"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(sent if fault == "short" else answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
        if fault == "cut":
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name is http.server's)
        pass
