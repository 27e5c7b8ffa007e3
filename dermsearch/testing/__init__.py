"""What a package that brings something of its own calls in its tests; no checkout of dermsearch is needed.

Each check takes the name under which the package is installed, and raises AssertionError with the promise that is not
kept, a sentence. A check trains small things on small stores, in seconds and on the CPU.
"""

from dermsearch.testing.domains import check_domain
from dermsearch.testing.evaluators import check_evaluator
from dermsearch.testing.fits import check_fit
from dermsearch.testing.samplers import check_sampler
from dermsearch.testing.sources import check_source
from dermsearch.testing.stores import check_store
from dermsearch.testing.tasks import check_task

__all__ = [
    "check_domain",
    "check_evaluator",
    "check_fit",
    "check_sampler",
    "check_source",
    "check_store",
    "check_task",
]
