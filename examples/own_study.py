"""A study written in Python and run in this process: python examples/own_study.py [FOLDER]"""

import sys
from pathlib import Path

from rich.console import Console

from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard, render
from dermsearch.run.run import run_study
from dermsearch.study.load import load_study

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results/own_study")
study = load_study(
    {
        "name": "own_study",
        "data": {"source": "synthetic", "cases": 60, "size": 32},
        "encoder": {"name": "resnet10t"},
        "curriculum": {"length": [1, 2], "tasks": {"rotation": {}, "simclr": {"temperature": 0.2}}},
        "train": {"epochs": 2, "batch": 16},
        "downstream": {"knn": {"k": 5}, "linear": {}},
        "objective": {"protocol": "linear", "metric": "auc", "label": "mean"},
        "compute": {"engine": "inline", "store": str(folder / "store")},  # engine: ray for more than a laptop
    }
)
console = Console()
run_study(study, folder, None, console)  # run again, it finds everything in the store
console.print(render(leaderboard(load(folder)), title=study.name))
