from __future__ import annotations

import pytest

from dermsearch.config import Compute
from dermsearch.errors import UserError
from dermsearch.search.cluster import concurrency, trial_resources

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
