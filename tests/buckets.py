"""Servers of buckets on this machine, for tests: Google Cloud Storage and S3.

    python tests/buckets.py gs|s3 [FAILING]

starts one in its own process, prints the URL of a bucket and the environment that leads clients to
it as JSON, and serves until standard input ends. FAILING is the share of requests that fail.
"""

import contextlib
import functools
import http.server
import json
import logging
import os
import random
import sys
import threading
import urllib.parse
import uuid
from collections.abc import Iterator

BUCKET = "abc-jaxclr"


class Faults:
    """Faults of the servers in this process.

    Attributes:
      failing: share of the requests that are answered with 503.
      writes: how many more requests may change something, after which the others are refused, as if
        the client were dead; None for all.
      seen: the paths of those that would.
    """

    def __init__(self) -> None:
        self.failing, self.writes = 0.0, None
        self.seen: list[str] = []
        self._draws, self._lock = random.Random(0), threading.Lock()

    def status(self, method: str, path: str) -> int | None:
        """The status of an answer that is a fault; None for a right one."""
        with self._lock:
            if self._draws.random() < self.failing:
                return 503
            if method in ("GET", "HEAD"):
                return None
            self.seen.append(urllib.parse.unquote(path))
            if self.writes is None:
                return None
            self.writes -= 1
            return 403 if self.writes < 0 else None


FAULTS = Faults()


@contextlib.contextmanager
def gcs() -> Iterator[str]:
    """Serves Google Cloud Storage and sets the environment; yields the URL of a bucket."""
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import buckets
    from gcp_storage_emulator.server import RequestHandler
    from gcp_storage_emulator.storage import Storage

    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    logging.getLogger("api").setLevel(logging.CRITICAL)
    logging.getLogger("api.object").setLevel(logging.CRITICAL)
    storage, one_at_a_time = Storage(use_memory_fs=True), threading.Lock()
    buckets.create_bucket(BUCKET, storage)

    class Handler(RequestHandler):
        """The emulator's, with failures, and with the generations that it ignores."""

        generation = 0

        def parse_request(self) -> bool:
            if not super().parse_request():
                return False
            if status := FAULTS.status(self.command, self.path):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._refuse(status)
                return False
            return True

        def __getattribute__(self, name: str):
            method = super().__getattribute__(name)
            return functools.partial(self._answer, method) if name.startswith("do_") else method

        def _answer(self, method) -> None:
            with one_at_a_time:
                parsed = urllib.parse.urlparse(self.path)
                query = urllib.parse.parse_qs(parsed.query)
                name = query.get("name") or [urllib.parse.unquote(parsed.path.rpartition("/o/")[2])]
                with contextlib.suppress(NotFound):
                    self.generation = int(storage.get_file_obj(BUCKET, name[0])["generation"])
                wanted = query.get("ifGenerationMatch", [self.generation])
                if int(wanted[0]) == self.generation:
                    method()
                else:
                    self.rfile.read(int(self.headers.get("Content-Length") or 0))
                    self._refuse(412)

        def _refuse(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def end_headers(self) -> None:
            if self.command == "GET" and self.generation:
                self.send_header("x-goog-generation", str(self.generation))
            super().end_headers()

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128  # of the default 5, a sixth waits for a second
        daemon_threads = True

        def handle_error(self, *_) -> None:
            """gcsfs cancels the slower of two requests."""

    server = Server(("127.0.0.1", 0), functools.partial(Handler, storage))
    host = f"http://127.0.0.1:{server.server_port}"
    environment = {
        "STORAGE_EMULATOR_HOST": host,
        "TENSORSTORE_GCS_HTTP_URL": host,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks Google for the kind of the bucket
    }
    with _serving(server), _environment(environment):
        yield f"gs://{BUCKET}"


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """Serves S3 and sets the environment; yields the URL of a bucket."""
    import boto3
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = DomainDispatcherApplication(create_backend_app)

    def answer(environ, start_response):
        if status := FAULTS.status(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{status} Fault", [("Content-Length", "0")])
            return [b""]
        return app(environ, start_response)

    server = make_server("127.0.0.1", 0, answer, True, request_handler=MotoRequestHandler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with _serving(server), _environment(environment):
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        client.close()
        yield f"s3://{BUCKET}"


def folder(bucket: str) -> str:
    """The URL of an empty folder in a bucket."""
    return f"{bucket}/{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def _serving(server) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


if __name__ == "__main__":
    at_start = dict(os.environ)
    with {"gs": gcs, "s3": s3}[sys.argv[1]]() as url:
        FAULTS.failing = float(sys.argv[2]) if sys.argv[2:] else 0.0
        added = {name: text for name, text in os.environ.items() if at_start.get(name) != text}
        print(json.dumps({"url": url, "environment": added}), flush=True)
        sys.stdin.read()
