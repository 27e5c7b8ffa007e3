"""Evaluators judge what a stage hands on. Importing this is cheap: no scikit-learn, no torch."""

from dermsearch.evaluate.base import (
    PROTOCOLS,
    Features,
    Given,
    Images,
    Judgement,
    check_objective,
    compare,
    configure,
    judge,
)

__all__ = [
    "PROTOCOLS",
    "Features",
    "Given",
    "Images",
    "Judgement",
    "check_objective",
    "compare",
    "configure",
    "judge",
]
