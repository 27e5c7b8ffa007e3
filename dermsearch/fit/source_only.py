"""No adaptation: what is learnt from the source is asked about the target as it is. What every other has to beat."""

from __future__ import annotations

from dermsearch.fit.adaptation import Adaptation, AdaptationSettings, Statistics


class SourceOnly(Adaptation):
    """The target is never looked at."""

    name = "source_only"

    class Config(AdaptationSettings):
        """Nothing of its own."""

    def statistics(self) -> Statistics:
        return "source"
