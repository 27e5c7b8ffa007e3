"""Fifty steps of a task, and what their losses were: `python tests/pretext/golden.py [TASK ...]` writes them anew.

`golden.json` holds them rounded, for any machine. `exact.json` holds every bit, for the torch and the processor that
are named in it: what only moves or renames code may not change one.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from pretext import tiny

FILE, EXACT = Path(__file__).with_name("golden.json"), Path(__file__).with_name("exact.json")
STEPS = 50
STEADY = 5  # steps after which rounding, which another processor does otherwise, may be seen


def machine() -> str:
    """What the last bits depend on."""
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    amx = " with AMX" if flags and "amx_tile" in flags[1].split() else ""
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}{amx}"


def losses(name: str, folder: Path, steps: int = STEPS) -> list[float]:
    """The losses of the first of fifty steps on the small store, at a rate that keeps rounding from growing."""
    torch.set_num_threads(1)
    run = tiny.Steps(name, tiny.make_store(folder / "store"), lr=0.002, epochs=STEPS)
    return [run.step() for _ in range(steps)]


if __name__ == "__main__":
    known, exact = ({} if not f.exists() else json.loads(f.read_text()) for f in (FILE, EXACT))
    if exact.pop("machine", "") != machine():
        exact = {}
    for task in sys.argv[1:] or tiny.TASKS:
        with tempfile.TemporaryDirectory() as place:
            exact[task] = losses(task, Path(place))
        known[task] = [round(loss, 6) for loss in exact[task]]
        print(f"{task:<20}{known[task][0]:10.6f} -> {known[task][-1]:10.6f}")
    for file, about in ((FILE, known), (EXACT, {"machine": machine(), **exact})):
        rows = (f'  "{name}": {json.dumps(about[name])}' for name in sorted(about))
        file.write_text("{\n" + ",\n".join(rows) + "\n}\n")
