"""A machine that believes it is 1970: a run on Ray, with all of Ray's own processes, waits for nobody for ever."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.tiny import TINY, run, values

from dermsearch.storage.leases import claim_of
from dermsearch.storage.stages import StageStore

STUDY = [*TINY, "curriculum.tasks={moco_v2: {queue: 32}}", "curriculum.length=[1,1]"]
EARLIER = """
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t which, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, which, now);
    if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) now->tv_sec -= atoll(getenv("EARLIER"));
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec, now->tv_usec = found.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    return now ? *now = found.tv_sec : found.tv_sec;
}
"""


@pytest.fixture
def in_1970(tmp_path: Path) -> dict[str, str]:
    """The environment in which every program and what it starts sees a clock that begins where Unix counts from."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("another clock for a few processes alone takes a C compiler and Linux")
    (tmp_path / "earlier.c").write_text(EARLIER)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "earlier.so", "earlier.c"], cwd=tmp_path, check=True)
    return os.environ | {"LD_PRELOAD": str(tmp_path / "earlier.so"), "EARLIER": str(int(time.time()))}


def stage_of(folder: Path, task: str) -> tuple[Path, dict[str, str]]:
    """A task's finished stage, and its manifest."""
    manifests = [(path.parent, json.loads(path.read_text())) for path in folder.glob("store/stages/*/manifest.json")]
    (found,) = [(path, manifest) for path, manifest in manifests if manifest["task"] == task]
    return found


@pytest.mark.long
def test_a_dead_run_is_inherited_from_in_1970(tmp_path: Path, in_1970: dict[str, str]) -> None:
    """Of another machine, so that its silence alone tells that it is dead."""
    run(tmp_path, *STUDY, "compute.engine=inline")
    before = values(tmp_path)
    stage, _ = stage_of(tmp_path, "moco_v2")
    shutil.rmtree(stage)
    store, dead, claim = StageStore(str(tmp_path / "store")), "d" * 32, f"claims/{stage.name}.json"
    store.write(claim, claim_of(dead, claim))
    store.write(f"claims/runs/{dead}.json", json.dumps({"beat": 1, "home": "elsewhere", "host": "node7"}).encode())
    words = ["run", "curriculum_three.yaml", *STUDY, "compute.engine=ray", f"compute.store={tmp_path / 'store'}"]
    command = [sys.executable, "-m", "dermsearch", *words, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=in_1970, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "Waiting for another run" in done.stderr and "node7" in done.stderr
    assert values(tmp_path) == before
    assert stage_of(tmp_path, "moco_v2")[1]["made"].startswith("1970"), "Ray's worker saw that clock too"
