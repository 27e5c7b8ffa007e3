"""What processes that died have left to Ray: it keeps what an actor reserved until the whole job ends."""

from __future__ import annotations

import contextlib
import threading

import ray
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Table
from ray.util.placement_group import PlacementGroup, remove_placement_group

EVERY = 5.0  # seconds between two looks


def release_until(ended: threading.Event) -> None:
    """Give back, again and again, what dead actors of this job have reserved.

    Ray Train's controller reserves its workers' share, and dies with the trial that began it, or with their node. The
    trial is tried again, and would wait for ever for what its own forerunner holds.
    """
    while not ended.wait(EVERY):
        with contextlib.suppress(Exception):  # that Ray itself is lost is for another to say
            release()


def release() -> int:
    """Remove the placement groups of this job whose actor is dead; how many there were."""
    job, removed = ray.get_runtime_context().get_job_id(), 0
    for row in state._connect_and_get_accessor().get_placement_group_table():
        group = Table.FromString(row)
        by_actor = any(group.creator_actor_id.strip(b"\xff"))  # a driver's has no id, and a "dead" actor
        if by_actor and group.creator_actor_dead and group.state != Table.REMOVED and group.creator_job_id.hex() == job:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
            removed += 1
    return removed
