from __future__ import annotations

import signal
import socket

import pytest
import ray
from ray.exceptions import AuthenticationError

from dermsearch.engines.ray_cluster import QUIET, call_it_without_secrets, concurrency, connect, trial_resources
from dermsearch.errors import UserError
from dermsearch.study.config import Compute

CPU = {"CPU": 4.0}
GPU = {"CPU": 16.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("compute", "nodes", "stages"),
    [
        (Compute(), [CPU, CPU], 8),
        (Compute(threads=3), [CPU, CPU], 2),  # a worker does not span nodes
        (Compute(gpus=1), [CPU, GPU, GPU], 4),
        (Compute(gpus=0.5), [GPU], 4),
        (Compute(gpus=0.25), [GPU], 8),
        (Compute(gpus=0.4), [GPU], 4),  # two on each GPU: what is left of both makes no third
        (Compute(workers=2, gpus=1), [GPU, GPU, GPU], 3),
        (Compute(workers=4, threads=2), [CPU, CPU], 1),  # a stage may
        (Compute(concurrency=3), [CPU, CPU], 3),
    ],
)
def test_as_many_stages_at_once_as_the_cluster_holds(compute: Compute, nodes: list[dict], stages: int) -> None:
    assert concurrency(compute, nodes) == stages


@pytest.mark.parametrize(
    "compute", [Compute(threads=5), Compute(workers=9), Compute(gpus=1), Compute(workers=3, threads=3)]
)
def test_what_can_never_start_is_refused(compute: Compute) -> None:
    with pytest.raises(UserError, match="the cluster has 8 CPUs and 0 GPUs on 2 nodes"):
        concurrency(compute, [CPU, CPU])


def test_a_trial_that_waits_for_its_workers_holds_no_cpu() -> None:
    assert "CPU" not in trial_resources(Compute(workers=2))
    assert trial_resources(Compute(threads=2, gpus=1)) == {"CPU": 2, "GPU": 1}


def test_a_client_of_ray_is_sent_to_the_cluster() -> None:
    with pytest.raises(UserError, match=r"--address: must be auto or the head's own, .* not 'ray://head:10001'"):
        connect(Compute(), "ray://head:10001")


@pytest.mark.parametrize("error", [AuthenticationError("no token was found"), ConnectionError("Failed to connect")])
def test_a_cluster_that_lets_nobody_in_asks_for_its_token(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray raises without a token, and after twenty seconds with a wrong one."""

    def refuse(**given: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", refuse)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"'{address}' does not let this run in: export RAY_AUTH_MODE=token"):
            connect(Compute(), address)


def test_ctrl_c_is_left_to_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune's own handler would only be looked at when its step is over."""
    from ray.tune.tune import _setup_signal_catching

    monkeypatch.setenv("TUNE_DISABLE_SIGINT_HANDLER", QUIET["TUNE_DISABLE_SIGINT_HANDLER"])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    try:
        _setup_signal_catching()
        assert signal.getsignal(signal.SIGINT) is before[signal.SIGINT]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_ray_does_not_note_the_secrets_of_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil
    from ray._private import utils

    monkeypatch.setattr(utils, "get_entrypoint_name", utils.get_entrypoint_name)
    words = ["dermsearch", "run", "x.yaml", "compute.store=s3://AKIAKEY:cre/dential@bucket/deep"]
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: words)
    for _ in range(2):
        call_it_without_secrets()
        assert utils.get_entrypoint_name() == "dermsearch run x.yaml compute.store=s3://bucket/deep"
