"""The engine on Ray: a cluster of its own on this machine or one to join, and as many stages at once as it holds."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import signal
import socket
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from dermsearch.engines.ray_local import Place
from dermsearch.engines.ray_watch import Address, Watch
from dermsearch.errors import EngineLost, UserError, first_line, public
from dermsearch.search.tree.driver import Driver
from dermsearch.storage.files import within
from dermsearch.study.config import Compute
from dermsearch.words import many

# Ray speaks to those who operate it; a researcher watches the study. Set before Ray is imported.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # what still asks a Ray that was left must not start another
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # its own waits for the end of a step: minutes, where another run is waited for
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",
}


# Of a Ray of one's own.
OWN = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else 127.0.0.1 becomes the address that others reach
    "RAY_worker_niceness": "0",  # else 15: on a machine with other work, stages stand still beside the run that waits
    "RAY_LOG_MONITOR_MAX_OPEN_FILES": "8",  # else 200: it closes those of processes that have ended only beyond that
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # else 2: a process that stood still for so long behind a stage fails it
}
PATIENCE, JOINED = 3.0, 20.0  # seconds without an answer until a Ray is lost: of this machine, of a network
LEAVING = 10.0  # seconds that Ray has to stop by itself


class Cluster:
    """The Ray of a run: joined or started on first need, and left at the end by who came."""

    def __init__(self, compute: Compute, address: str | None, say: Callable[[str], None] = lambda text: None) -> None:
        self.compute, self.address, self.say, self.came = compute, address, say, False
        self.place: Place | None = None  # of a Ray of its own
        self.watch: Watch | None = None
        self.before: Any = None  # the handler of SIGTERM

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        if self.watch is not None:
            self.watch.end()
        if self.came:
            self._leave()
        if self.place is not None:
            self.place.leave()
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)

    def load(self) -> None:
        """Import Ray, before another thread imports cv2: that puts `sys.path` back, and Ray's own packages are gone."""
        for name, value in (QUIET if self.address else {**QUIET, **OWN}).items():
            os.environ.setdefault(name, value)
        import ray  # noqa: F401

    def open(self) -> None:
        """Be in a cluster from here on."""
        self.load()
        if self.before is None and threading.current_thread() is threading.main_thread():
            self.before = signal.getsignal(signal.SIGTERM)
        import ray

        warnings.filterwarnings("ignore", module="ray")
        if not ray.is_initialized():
            self.say(f"Joining the Ray cluster at {self.address} ..." if self.address else "Starting Ray ...")
            take_notice()  # from here on something would be left behind
            self.place = None if self.address else Place()
            connect(self.compute, self.address, self.place)
            self.came = True
            take_notice()  # Ray has a handler of its own, which prints a stack
            sign = self.place.sign if self.place else None
            self.watch = Watch(doors(), JOINED if self.address else PATIENCE, sign)
        for name in ("ray", "ray.tune", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def check(self) -> None:
        """Raise where the Ray is no longer there."""
        if self.watch is not None and self.watch.lost:
            where = f"the Ray cluster at '{self.address}'" if self.address else "Ray on this machine"
            raise EngineLost(f"{where} has stopped ({self.watch.lost} is gone); the same command continues")

    def _leave(self) -> None:
        """Stop Ray; one that is lost may never say that it has stopped."""
        import ray

        leaving = threading.Thread(target=ray.shutdown, daemon=True)
        if self.watch is None or not self.watch.lost:
            leaving.start()
            leaving.join(LEAVING)
        if self.watch is None or self.watch.lost or leaving.is_alive():
            atexit.unregister(ray.shutdown)


def take_notice() -> None:
    """A scheduler's notice, SIGTERM, is taken as Ctrl-C."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def doors() -> list[tuple[str, Address]]:
    """Where the Ray that this process is in must answer: its head, and the part of it on this machine."""
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    found = [("its head", (host.strip("[]"), int(port)))]
    for node in ray.nodes():
        if node["NodeID"] == context.get_node_id():
            found.append(("its raylet", (node["NodeManagerAddress"], node["NodeManagerPort"])))
    return found


def run_ray(driver: Driver, cluster: Cluster) -> None:
    """Run the driver's jobs as Tune trials until it says that it is finished."""
    cluster.open()
    import ray

    from dermsearch.engines.ray_mended import keep_processes, try_again_for_want_of_memory
    from dermsearch.engines.ray_tune import leave_keys_alone, run_trials

    try_again_for_want_of_memory()
    if cluster.place:
        leave_keys_alone()
        keep_processes()
    compute = driver.study.compute
    at_once = concurrency(compute, [n["Resources"] for n in ray.nodes() if n["Alive"]])
    storage = f"tune/{driver.study.name}-{uuid.uuid4().hex[:12]}"  # runs on several machines may share the store
    try:
        where = within(driver.store.address, storage)
        run_trials(driver, where, trial_resources(compute), at_once, cluster.check)
    finally:
        driver.store.forget(storage)
    if not (driver.over or driver.stopped):  # Tune takes SIGUSR1 as a wish to stop, and returns as if all were well
        raise KeyboardInterrupt


def connect(compute: Compute, address: str | None, place: Place | None = None) -> None:
    """Join the cluster at `address`, or start one on this machine."""
    import ray
    from ray.exceptions import AuthenticationError

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    call_it_without_secrets()
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
            where = {"_temp_dir": str(place.sessions)} if place else {}
            ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **where, **quiet)
    except (AuthenticationError, RuntimeError, ValueError, OverflowError, OSError) as error:
        if address and type(error) in (AuthenticationError, ConnectionError):  # it listens, and lets nobody in
            raise UserError(
                f"--address: the Ray cluster at '{address}' does not let this run in: export RAY_AUTH_MODE=token and "
                "its token as RAY_AUTH_TOKEN (or the token's file as RAY_AUTH_TOKEN_PATH)"
            ) from None
        what = f"--address: no Ray cluster answers at '{address}'" if address else "Ray did not start on this machine"
        raise UserError(f"{what}: {first_line(error)}") from None


def call_it_without_secrets() -> None:
    """Ray notes the whole command line as the name of a job, in its logs and on its dashboard, whatever one says."""
    from ray._private import utils

    whole = getattr(utils, "get_entrypoint_name", None)
    if whole is not None and not hasattr(whole, "whole"):
        told = functools.wraps(whole)(lambda: public(whole()))
        told.whole = whole  # type: ignore[attr-defined]
        utils.get_entrypoint_name = told


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
        wanted = " and ".join(many(n, r) for r, n in need.items())
        total = {r: sum(n.get(r, 0) for n in nodes) for r in ("CPU", "GPU")}
        largest = {r: max((n.get(r, 0) for n in nodes), default=0) for r in ("CPU", "GPU")}
        raise UserError(
            f"compute: a stage wants {many(compute.workers, 'worker')} with {wanted} each; "
            f"the cluster has {many(total['CPU'], 'CPU')} and {many(total['GPU'], 'GPU')} on "
            f"{many(len(nodes), 'node')} (largest: {largest['CPU']:g} and {largest['GPU']:g}); "
            "lower compute.workers, compute.threads or compute.gpus"
        )
    return min(stages, compute.concurrency or stages)


def holds(amount: float, share: float) -> int:
    """How many shares a node has room for; one of less than a GPU lies on a single GPU."""
    if share < 1:
        return int(amount) * int(1 / share + 1e-9)
    return int(amount / share + 1e-9)
