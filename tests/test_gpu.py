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
    parity, images, stages, study = done.stdout.split("\n\n")[1:]
    assert [line.split()[2] for line in parity.splitlines()[1:]] == [
        line.split()[1] for line in parity.splitlines()[1:]
    ]
    assert len(parity.splitlines()) == 4 and len(stages.splitlines()) == 3
    assert images.startswith("images: auto ") and ", pinned " in images
    assert study.startswith("study: 2 stages in ")
