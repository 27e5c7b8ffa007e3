"""Where Tune goes another way than a run can do with: put right in its own classes, once per process."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache


def mend(owner: Any, name: str, how: Callable[..., Any]) -> None:
    """Have `how(whole, self, ...)` stand for a method `whole`; a second time does nothing."""
    whole = getattr(owner, name)
    if not hasattr(whole, "mended"):
        mended = functools.wraps(whole)(lambda *given, **named: how(whole, *given, **named))
        mended.mended = True  # type: ignore[attr-defined]
        setattr(owner, name, mended)


def try_again_for_want_of_memory() -> None:
    """Have a process that Ray ended for want of memory count as one that died; Tune ended the whole run with a bug."""
    mend(RayActorManager, "_actor_task_failed", died)
    mend(Trial, "_get_default_result_or_future", first_words)


def died(whole: Callable[..., None], manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
    """Tell the manager of it in the one way that it knows."""
    lacked = isinstance(exception, OutOfMemoryError)
    whole(manager, tracked_actor_task, RayActorError(error_msg=str(exception)) if lacked else exception)


def first_words(whole: Callable[..., Any], trial: Any) -> Any:
    """What a process said of itself when it began: nothing where it was ended before it could."""
    try:
        return whole(trial)
    except OutOfMemoryError:
        trial._default_result_or_future = None


def keep_processes() -> None:
    """Have as many processes stay as there are stages at once: for a Ray of one's own, where nobody waits for them.

    Tune gives a trial whose process is still starting to one that has become free, and ends the other: where stages
    take less time than a process to start, a second one never comes so far. Of those that are free it keeps one.
    """
    tune_controller._ObjectCache = KeptProcesses
    mend(tune_controller.TuneController, "_maybe_reuse_cached_actor", reuse)


def reuse(whole: Callable[..., bool], controller: Any, trial: Any) -> bool:
    """Give a trial a free process, unless its own is starting: then the free one takes the next."""
    starts = trial in controller._trial_to_actor and trial not in controller._resetting_trials
    return not starts and whole(controller, trial)


class KeptProcesses(_ObjectCache):
    """Tune's processes that are free: all stay until it has nothing more to do."""

    def cache_object(self, key: Any, obj: Any) -> bool:
        """Keep one more."""
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        """Those that are to end."""
        return super().flush_cached_objects(True) if force_all else iter(())
