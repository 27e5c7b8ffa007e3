"""The engine on Ray: a cluster of its own on this machine or one to join, and as many stages at once as it holds."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import uuid
import warnings
from collections.abc import Iterable
from typing import Any

from dermsearch.errors import UserError, first_line
from dermsearch.search.tree.driver import Driver
from dermsearch.storage.files import within
from dermsearch.study.config import Compute

# Ray speaks to those who operate it; a researcher watches the study. Set before Ray is imported.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # its own waits for the end of a step: minutes, where another run is waited for
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",
}


class Cluster:
    """The Ray of a run: joined or started on first need, and left at the end by who came."""

    def __init__(self, compute: Compute, address: str | None) -> None:
        self.compute, self.address, self.came = compute, address, False

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        if self.came:
            import ray

            ray.shutdown()
            if signal.getsignal(signal.SIGTERM) is signal.default_int_handler:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def open(self) -> None:
        """Be in a cluster from here on."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        warnings.filterwarnings("ignore", module="ray")
        if not ray.is_initialized():
            connect(self.compute, self.address)
            self.came = True
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's notice: Ray's prints a stack
        for name in ("ray", "ray.tune", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def run_ray(driver: Driver, cluster: Cluster) -> None:
    """Run the driver's jobs as Tune trials until it says that it is finished."""
    cluster.open()
    import ray
    from ray import tune

    from dermsearch.engines.ray_tune import StageSearcher, run_trial

    compute = driver.study.compute
    at_once = concurrency(compute, [n["Resources"] for n in ray.nodes() if n["Alive"]])
    storage = f"tune/{driver.study.name}-{uuid.uuid4().hex[:12]}"  # runs on several machines may share the store
    where = within(driver.store.address, storage)
    try:
        tune.Tuner(
            tune.with_resources(run_trial, trial_resources(compute)),
            tune_config=tune.TuneConfig(
                search_alg=StageSearcher(driver, where),
                num_samples=-1,
                max_concurrent_trials=at_once,
                reuse_actors=True,  # a warm process takes a stage in a tenth of a second, a new one in many
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=where,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=compute.retries),
            ),
        ).fit()
    finally:
        driver.store.forget(storage)
    if not (driver.over or driver.stopped):  # Tune takes SIGUSR1 as a wish to stop, and returns as if all were well
        raise KeyboardInterrupt


def connect(compute: Compute, address: str | None) -> None:
    """Join the cluster at `address`, or start one on this machine."""
    import ray
    from ray.exceptions import AuthenticationError

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        if address:
            if address.startswith("ray://"):
                raise UserError(
                    f"--address: must be auto or the head's own, such as 10.0.0.1:6379, not '{address}': a run is on a "
                    "machine of the cluster"
                )
            knock(address)
            ray.init(address=address, **quiet)
        else:
            # "local", or Ray would join whatever else runs on this machine.
            ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
    except (AuthenticationError, RuntimeError, ValueError, OverflowError, OSError) as error:
        if address and type(error) in (AuthenticationError, ConnectionError):  # it listens, and lets nobody in
            raise UserError(
                f"--address: the Ray cluster at '{address}' does not let this run in: export RAY_AUTH_MODE=token and "
                "its token as RAY_AUTH_TOKEN (or the token's file as RAY_AUTH_TOKEN_PATH)"
            ) from None
        where = f"--address: no Ray cluster answers at '{address}'" if address else "Ray did not start on this machine"
        raise UserError(f"{where}: {first_line(error)}") from None


def knock(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself would go on trying for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def trial_resources(compute: Compute) -> dict[str, float]:
    """What one Tune trial asks for: its worker's share, or a token while Ray Train's workers hold the real one.

    The token is memory, of which every node has some: a share of a CPU could be the one that the workers lack.
    """
    if compute.workers > 1:
        return {"memory": 2**20}
    return worker_resources(compute)


def worker_resources(compute: Compute) -> dict[str, float]:
    """What one worker needs on one node."""
    return {"CPU": compute.threads, **({"GPU": compute.gpus} if compute.gpus else {})}


def concurrency(compute: Compute, nodes: Iterable[dict[str, float]]) -> int:
    """How many stages the cluster holds at once; refuses what it could never hold, which Ray would retry for ever."""
    nodes = list(nodes)
    need = worker_resources(compute)
    slots = sum(min(holds(node.get(r, 0), n) for r, n in need.items()) for node in nodes)
    stages = slots // compute.workers
    if stages < 1:
        wanted = " and ".join(f"{n:g} {r}{'s' if n != 1 else ''}" for r, n in need.items())
        total = {r: sum(n.get(r, 0) for n in nodes) for r in ("CPU", "GPU")}
        largest = {r: max((n.get(r, 0) for n in nodes), default=0) for r in ("CPU", "GPU")}
        raise UserError(
            f"compute: a stage wants {compute.workers} worker{'s' if compute.workers > 1 else ''} with {wanted} each; "
            f"the cluster has {total['CPU']:g} CPUs and {total['GPU']:g} GPUs on {len(nodes)} node"
            f"{'s' if len(nodes) != 1 else ''} (largest: {largest['CPU']:g} and {largest['GPU']:g}); "
            "lower compute.workers, compute.threads or compute.gpus"
        )
    return min(stages, compute.concurrency or stages)


def holds(amount: float, share: float) -> int:
    """How many shares a node has room for; one of less than a GPU lies on a single GPU."""
    if share < 1:
        return int(amount) * int(1 / share + 1e-9)
    return int(amount / share + 1e-9)
