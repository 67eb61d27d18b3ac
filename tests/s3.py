"""An S3 server on this machine (moto's), which may also throttle, refuse and fail."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "bucket"
REFUSAL = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>%s</Message></Error>"


class _Silent(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


class Server:
    """`refuse` maps a request (method, path) to (status, code) or to None, for as long as it is set."""

    def __init__(self) -> None:
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.refuse: Callable[[str, str], tuple[str, str] | None] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Silent)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        refused = self.refuse(method, path)
        if refused is None:
            answer: Iterable[bytes] = self.moto(environ, start)
            return answer
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, code = refused
        body = REFUSAL % (code.encode(), b"as the test asked for")
        start(f"{status} refused", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def serving() -> Iterator[Server]:
    """A server with one empty bucket, to which the environment of this process points."""
    values = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        patch.delenv("AWS_PROFILE", raising=False)
        for name, value in {**values, "AWS_ENDPOINT_URL": server.url}.items():
            patch.setenv(name, value)
        forget()
        client().create_bucket(Bucket=BUCKET)
        try:
            yield server
        finally:
            forget()
            server.close()


def client() -> Any:
    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def forget() -> None:
    """The clients that this process has: the next one reads the environment anew."""
    from shards.store import bucket

    bucket._filesystems.clear()


def objects(prefix: str = "") -> dict[str, bytes]:
    """Key after the prefix -> bytes, by another client than ours."""
    s3 = client()
    found = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        for entry in page.get("Contents", []):
            found[entry["Key"][len(prefix) :]] = s3.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
    return found


def unfinished_uploads() -> list[str]:
    return [upload["Key"] for upload in client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]
