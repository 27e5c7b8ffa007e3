"""How often the processes of a stage talk to one another in a step: each time costs, however little is said."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from gloo import Group
from pretext import tiny
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from dermsearch.data.store.case_store import CaseStore
from dermsearch.training import stage

CALLS = ("all_reduce", "all_gather", "broadcast_object_list")


def counted(folder: str, steps: int) -> Counter[str]:
    """What this process takes part in while an epoch of so many steps is trained."""
    torch.set_num_threads(1)
    found: Counter[str] = Counter()

    class Watched(DistributedDataParallel):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            self.register_comm_hook(None, sent)

    def sent(group: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        found["buckets"] += 1
        return default_hooks.allreduce_hook(group, bucket)

    def watched(name: str) -> Any:
        call = getattr(dist, name)

        def made(*given: Any, **more: Any) -> Any:
            found[name] += 1
            return call(*given, **more)

        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "DistributedDataParallel", Watched)
        for name in CALLS:
            patch.setattr(dist, name, watched(name))
        given = tiny.recipe("simclr", epochs=1), tiny.encoders(), CaseStore(folder), np.arange(tiny.BATCH * steps)
        stage.train_stage(*given, tiny.Kept(), lambda row: None, tiny.CPU)
    return found


@pytest.mark.slow
def test_a_step_makes_no_more_collectives_than_it_needs(tmp_path: Any, two: Group) -> None:
    """On CPUs. Gradients go in buckets of 1 and 25 MB; each of 17 BatchNorms sums twice, forward and back."""
    folder = str(tiny.make_store(tmp_path / "store").folder)
    (short, _), (long, _) = (two(counted, folder, steps) for steps in (2, 3))
    views, loss = 2, 1
    clock = Counter(broadcast_object_list=1)  # and the notice: after the first two steps, then ever more seldom
    assert long - short - clock == Counter(buckets=2, all_reduce=17 * 2 * 2 + views * 2 + loss), "of a step"
    assert long["all_gather"] == 1, "of an epoch"
    assert long["broadcast_object_list"] == 1 + 2 + 1, "where it begins, within it, at its end"
