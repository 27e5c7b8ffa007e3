"""A real S3 server for tests: moto's, in a process of its own on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Credentials that the server takes as any others; none are looked for elsewhere.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Server:
    """Answers from when it is made until `stop`."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with log.open("w") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said)
        until = time.monotonic() + 300
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/moto-api/data.json", timeout=60).close()
        except OSError:
            return False
        return True

    def bucket(self, name: str) -> None:
        """Make a bucket."""
        put = urllib.request.Request(f"http://127.0.0.1:{self.port}/{name}", method="PUT")
        urllib.request.urlopen(put, timeout=60).close()

    def uri(self, path: str) -> str:
        """What a user writes for bucket/path."""
        return f"s3://{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def stop(self) -> None:
        """End it, if it is still there."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
        self.process.wait()


@contextmanager
def serving(log: Path) -> Iterator[Server]:
    """A server with a bucket named `bucket`, and credentials for it in the environment."""
    server = Server(log)
    try:
        server.bucket("bucket")
        with pytest.MonkeyPatch.context() as environment:
            for name, value in CREDENTIALS.items():
                environment.setenv(name, value)
            yield server
    finally:
        server.stop()
