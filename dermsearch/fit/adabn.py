"""AdaBN: BatchNorm takes its statistics from the target's images, and nothing else is learnt of them. (Li et al. 2016)

Trained as `source_only` is, step for step, so the two differ in the statistics alone.
"""

from __future__ import annotations

from dermsearch.fit.adaptation import Adaptation, AdaptationSettings


class AdaBN(Adaptation):
    """Weights of the source, statistics of the target."""

    name = "adabn"

    class Config(AdaptationSettings):
        """Nothing of its own."""
