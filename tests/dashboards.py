"""What stands for the dashboard of a cluster: a real server, which answers as the Jobs API does and can go away."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import ray

JOB = "capfilt-bootstrap-run-000000000000-1"


@contextmanager
def dashboard(port: int = 0, state: str = "RUNNING", status: int = 200, locked: bool = False) -> Iterator[int]:
    """Yield the port of a server that knows one job, in this state, and answers questions after jobs with a status.

    One that is locked answers nothing without a token.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_version = self.path == "/api/version"
            values = {"ray_version": ray.__version__} if is_version else _job(state)
            body = json.dumps([values] if self.path == "/api/jobs/" else values).encode()
            if locked:
                body = b"Unauthorized: Missing authentication token"
            self.send_response(401 if locked else 200 if is_version else status)
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


def _job(state: str) -> dict[str, object]:
    return {"type": "SUBMISSION", "submission_id": JOB, "status": state, "entrypoint": "capfilt", "start_time": 1000}
