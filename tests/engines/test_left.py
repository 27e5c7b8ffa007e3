"""What dead processes had reserved is given back, and nothing else."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from dermsearch.study.config import Compute


class Owner:
    """An actor that reserves a CPU."""

    def reserve(self) -> str:
        """The id of what it has."""
        import ray
        from ray.util.placement_group import placement_group

        group = placement_group([{"CPU": 1}])
        ray.get(group.ready())
        return str(group.id.hex())


@pytest.mark.slow
def test_only_what_a_dead_process_reserved_is_given_back() -> None:
    """Not what the driver has, nor what an actor that lives has."""
    import ray
    from ray import cloudpickle
    from ray.util.placement_group import placement_group, placement_group_table

    from dermsearch.engines.ray_cluster import Cluster
    from dermsearch.engines.ray_left import release

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with Cluster(Compute(), None) as cluster:
        cluster.open()
        mine = placement_group([{"memory": 2**20}])
        ray.get(mine.ready())
        owner: Any = ray.remote(num_cpus=0)(Owner)
        dead, alive = owner.remote(), owner.remote()
        left, kept = ray.get(dead.reserve.remote()), ray.get(alive.reserve.remote())
        assert release() == 0
        ray.kill(dead)
        until = time.monotonic() + 60
        while not (removed := release()) and time.monotonic() < until:
            time.sleep(0.1)
        states = {key: row["state"] for key, row in placement_group_table().items()}
        assert removed == 1
        assert states == {left: "REMOVED", kept: "CREATED", mine.id.hex(): "CREATED"}
        assert release() == 0
