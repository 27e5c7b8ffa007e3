"""`dermsearch` in processes of its own that start at once: forks of one that has imported everything but Ray.

A start takes seconds of a processor, and the tests want hundreds. A fork is the same command in every other way: it has
its own folder, environment, streams and exit status, and can be killed. Not for a test of the start itself.
"""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

PLACES = os.environ.get("PYTHONPATH")
STARTS_RAY = "dermsearch.engines.ray_"  # modules that import it, whose threads no fork would have


class Command:
    """A command under way."""

    def __init__(self, words: list[str], cwd: Path, out: int, err: int, env: Mapping[str, str] | None = None) -> None:
        ours, told = os.pipe()
        wish = {"words": words, "cwd": str(cwd), "env": dict(os.environ if env is None else env)}
        with open(os.devnull) as nothing:
            socket.send_fds(server(os.getpid()), [json.dumps(wish).encode()], [nothing.fileno(), out, err, told])
        os.close(told)
        self.answer = os.fdopen(ours)
        self.pid, self.returncode = int(self.answer.readline()), None

    def poll(self, timeout: float = 0) -> int | None:
        """Its exit status, or None while it runs."""
        until = time.monotonic() + timeout
        while self.returncode is None:
            if select.select([self.answer], [], [], max(0, until - time.monotonic()))[0]:
                self.returncode = int(self.answer.readline())
                self.answer.close()
            elif time.monotonic() >= until:
                break
        return self.returncode


def run(
    words: list[str], cwd: Path, timeout: float = 600, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`dermsearch` with these words in a folder, to its end; killed, and TimeoutExpired, where it takes longer.

    Started for itself where modules are to be found in other places than those that were looked through.
    """
    if (env or os.environ).get("PYTHONPATH") != PLACES:
        command = [sys.executable, "-m", "dermsearch", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=timeout)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        going = Command(words, cwd, out.fileno(), err.fileno(), env)
        code = going.poll(timeout)
        if code is None:
            os.kill(going.pid, signal.SIGKILL)
        streams = []
        for stream in (out, err):
            stream.seek(0)
            streams.append(stream.read().decode())
    if code is None:
        raise subprocess.TimeoutExpired(words, timeout, *streams)
    return subprocess.CompletedProcess(words, code, *streams)


@cache
def server(owner: int) -> socket.socket:
    """Where this process asks for forks; it ends with this process."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.Popen([sys.executable, __file__, str(there.fileno())], pass_fds=[there.fileno()])
    there.close()
    return here


def serve(asked: socket.socket) -> list[str] | None:
    """Fork for each that asks: the words in a fork, None in the server when nobody can ask any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        wish, fds, _, _ = socket.recv_fds(asked, 1 << 20, 4)
        if not wish:
            return None
        if not os.fork():
            break
        for fd in fds:
            os.close(fd)
    # Its keeper, which tells the number of the process and waits for its status.
    asked.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, told = fds
    if pid := os.fork():
        os.write(told, f"{pid}\n".encode())
        for fd in streams:
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    os.close(told)
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    given = json.loads(wish)
    os.chdir(given["cwd"])
    os.environ.clear()
    os.environ.update(given["env"])
    return given["words"]


def load() -> None:
    """Import what commands import."""
    import dermsearch

    for module in pkgutil.walk_packages(dermsearch.__path__, "dermsearch."):
        if not module.name.startswith(STARTS_RAY) and not module.name.endswith("__main__"):
            import_module(module.name)
    for name in ("matplotlib.pyplot", "sklearn.linear_model", "torch._dynamo"):
        import_module(name)
    assert "ray" not in sys.modules
    gc.freeze()  # a fork would copy all that is looked through


if __name__ == "__main__":
    asked = socket.socket(fileno=int(sys.argv[1]))
    load()
    words = serve(asked)
    if words is not None:
        from dermsearch.cli.main import program

        sys.argv = ["dermsearch", *words]
        program()
