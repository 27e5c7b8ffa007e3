"""The script that comes first on a GPU runs, with the CPU in the place of one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one: run the script itself")
def test_what_is_tried_on_a_gpu_first() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--small"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no GPU: the CPU stands in for it" in done.stdout
    parity, images, numbers, stages, study = done.stdout.split("\n\n")[1:]
    assert [line.split()[2] for line in parity.splitlines()[1:]] == [
        line.split()[1] for line in parity.splitlines()[1:]
    ]
    assert len(parity.splitlines()) == 4 and len(stages.splitlines()) == 3
    assert images.startswith("images: auto ") and ", pinned " in images
    assert numbers.startswith("numbers: 0 of ")
    assert study.startswith("study: 2 stages in ")


@pytest.mark.slow
def test_what_a_task_costs_is_what_it_says() -> None:
    """Counted without computing anything, beside the bare network."""
    command = [sys.executable, SCRIPT.with_name("cost.py"), "--batch", "8", "moco_v2", "simclr"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    _, bare, *rows = (line.split() for line in done.stdout.splitlines())
    assert bare[:3] == ["resnet50", "24.3", "1.00"], "twice 4.1 G products, three times, but for the images' gradient"
    assert [row[0] for row in rows] == ["moco_v2", "simclr"]
    for _, _, times, says, _, kept, _ in rows:
        assert float(times) == pytest.approx(float(says), rel=0.02)
        assert float(kept) == pytest.approx({"1.33": 1, "2.00": 2}[says], rel=0.02)
