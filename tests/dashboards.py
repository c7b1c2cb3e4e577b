"""What stands for the dashboard of a cluster: a real server, which answers as the Jobs API does and can go away."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Literal

import ray

JOB = "capfilt-bootstrap-run-000000000000-1"

Values = dict[str, object]


@contextmanager
def dashboard(
    port: int = 0,
    state: str = "RUNNING",
    status: int = 200,
    locked: bool = False,
    jobs: list[Values] | None = None,
    log: str = "",
    then: Literal["close", "break", "wait"] = "close",
) -> Iterator[int]:
    """Yield the port of a server that knows some jobs, and answers questions after jobs with a status.

    Without a list it knows one job, in this state. What is submitted joins the list as a job that runs; its package is
    there already. The first one can be stopped. A server that is locked answers nothing without a token. Who follows a
    log gets this one and then the end of the connection, a broken connection, or nothing while the server is there and
    long after.
    """
    known = [a_job(JOB, state)] if jobs is None else jobs

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/api/version":
                self.answer(200, {"ray_version": ray.__version__})
            elif self.path.endswith("/logs/tail"):
                self.tail()
            else:
                self.answer(status, known if self.path == "/api/jobs/" else next(iter(known), {}))

        def do_POST(self) -> None:
            if self.path.endswith("/stop"):
                known[0]["status"] = "STOPPED"
                self.answer(200, {"stopped": True})
                return
            values = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known.append(a_job(values["submission_id"], entrypoint=values["entrypoint"], metadata=values["metadata"]))
            self.answer(200, {"job_id": values["submission_id"], "submission_id": values["submission_id"]})

        def tail(self) -> None:
            """Speak the WebSocket protocol, RFC 6455, as far as a text needs it that has less than 126 bytes."""
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade")):
                self.send_header(name, value)
            self.send_header("Sec-WebSocket-Accept", b64encode(hashlib.sha1(key.encode()).digest()).decode())
            self.end_headers()
            self.wfile.write(b"\x81" + bytes([len(log)]) + log.encode())
            if then == "close":
                self.wfile.write(b"\x88\x02" + (1000).to_bytes(2, "big"))
                self.rfile.read(8)  # the same, masked, in return
            if then == "wait":
                Event().wait(60)
            self.close_connection = True

        def answer(self, code: int, values: object) -> None:
            body = b"Unauthorized: Missing authentication token" if locked else json.dumps(values).encode()
            self.send_response(401 if locked else code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def a_job(name: str, state: str = "RUNNING", **values: object) -> Values:
    """Return a job as the Jobs API tells of it; times are in milliseconds."""
    told = {"type": "SUBMISSION", "submission_id": name, "status": state, "entrypoint": "capfilt", "start_time": 1000}
    return told | values
