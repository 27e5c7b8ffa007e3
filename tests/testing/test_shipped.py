"""What is shipped keeps what is asked of others; tasks, fits and sources are checked in rooms of their own."""

import pytest

from dermsearch.evaluate.base import PROTOCOLS
from dermsearch.fit.base import FITS
from dermsearch.testing import check_evaluator, check_sampler


@pytest.mark.parametrize("name", [name for name in PROTOCOLS.shipped if name not in FITS.shipped])
def test_evaluators(name: str) -> None:
    own = {"metadata_only": {"metadata": ["sex", "site"]}, "attention": {"size": 64, "stride": 8, "images": 4}}
    check_evaluator(name, own.get(name, {}))


@pytest.mark.parametrize("name", ["grid", "random", "curriculum_prior", "qmc"])  # the others think for long
def test_samplers(name: str) -> None:
    check_sampler(name)
