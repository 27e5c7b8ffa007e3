"""The largest batches that fit on a GPU, by what a pass keeps for its gradient; and what one takes on this machine.

    python benchmarks/memory.py

fits    for every task the largest power of two, of a step of one worker in bf16, that leaves a tenth of the GPU free;
        counted as `dermsearch plan` counts it, nothing is computed.
here    a forward pass in single precision on the CPU: by how much this process grew, beside what was counted.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from dermsearch.models.encoders import backbone, is_vit
from dermsearch.pretext.base import TASKS, find_task
from dermsearch.run.memory import OF_WEIGHT, sizes_of

NETWORKS = [("resnet18", 128), ("resnet50", 224), ("vit_small_patch16_224", 224)]
GPUS = {"24 GB": 24e9, "A100, 80 GB": 80e9, "H200, 141 GB": 141e9}
FREE = 0.1
HERE = [("resnet18", 128, 32), ("resnet50", 224, 8), ("vit_small_patch16_224", 224, 8)]


def fits() -> None:
    """A table for every network."""
    for network, size in NETWORKS:
        kept, weights = sizes_of(network, size, "bf16")
        head = "".join(f"{name:>14}" for name in GPUS)
        print(f"\n{f'{network}, {size} px':<30}{head}   {kept / 1e6:.1f} MB a pass")
        for name in TASKS.names():
            if name == ("colorme" if is_vit(network) else "ibot"):
                continue  # which another kind of network does
            task = find_task(name)
            images = (task.least if task.joint else 1) * task.cost(task.Config(), size)
            row = f"{name:<30}"
            for room in GPUS.values():
                most = (room * (1 - FREE) - weights * OF_WEIGHT * (task.least if task.joint else 1)) / images / kept
                row += f"{2 ** (int(most).bit_length() - 1):>14,}"
            print(row)


def here() -> None:
    """Counted and measured."""
    print(f"\n{'forward pass, fp32':<30}{'batch':>8}{'counted, MB':>14}{'taken, MB':>14}{'ratio':>8}")
    torch.set_num_threads(1)
    for network, size, batch in HERE:
        module = backbone(network).train()
        with torch.no_grad():
            module(torch.randn(2, 3, size, size))  # what is made once
        images, before = torch.randn(batch, 3, size, size), resident()
        features = module(images)
        taken, counted = resident() - before, batch * sizes_of(network, size, "fp32")[0]
        assert features.requires_grad  # they hold what was kept
        told = f"{batch:>8}{counted / 1e6:>14,.0f}{taken / 1e6:>14,.0f}{taken / counted:>8.2f}"
        print(f"{f'{network}, {size} px':<30}{told}", flush=True)


def resident() -> int:
    """Bytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    fits()
    here()
