"""Fifty steps of a task, and what their losses were: `python tests/pretext/golden.py [TASK ...]` writes them anew."""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from pretext import tiny

FILE = Path(__file__).with_name("golden.json")
STEPS = 50


def losses(name: str, folder: Path) -> list[float]:
    """The loss of every step on the small store, at a rate that keeps rounding from growing."""
    torch.set_num_threads(1)
    run = tiny.Steps(name, tiny.make_store(folder / "store"), lr=0.002, epochs=STEPS)
    return [run.step() for _ in range(STEPS)]


if __name__ == "__main__":
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    for task in sys.argv[1:] or tiny.TASKS:
        with tempfile.TemporaryDirectory() as place:
            known[task] = [round(loss, 6) for loss in losses(task, Path(place))]
        print(f"{task:<20}{known[task][0]:10.6f} -> {known[task][-1]:10.6f}")
    rows = (f'  "{task}": {json.dumps(known[task])}' for task in sorted(known))
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
