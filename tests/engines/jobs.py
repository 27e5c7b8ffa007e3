"""A job that nobody trains, for what only carries jobs about."""

from __future__ import annotations

from typing import Any

from dermsearch.study.data import Data
from dermsearch.work.job import Cases, Job


def some_job(**changes: Any) -> Job:
    """A root that nobody judges, but for the given fields."""
    fields: dict[str, Any] = {
        **{"kind": "root", "key": "k", "parent": "", "task": "", "settings": {}, "curriculum": "", "study": "test"},
        **{"seed": 0, "sets": {"data": Cases(data=Data(), fingerprint="")}, "encoder": "", "branches": "shared"},
        **{"weights": "", "precision": "fp32", "judges": (), "store": "", "cache": "", "threads": 1, "gpus": 0},
        **{
            "workers": 1,
            "retries": 0,
            "compile": False,
            "pixels": "auto",
            "save_every": 0,
            "knn_every": 0,
            "label": "",
            "node": "here",
        },
    }
    return Job(**{**fields, **changes})
