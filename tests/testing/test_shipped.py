"""What is shipped keeps what is asked of others; tasks, fits and sources are checked in rooms of their own."""

import pytest

from dermsearch.evaluate.base import PROTOCOLS
from dermsearch.fit.base import FITS
from dermsearch.testing import check_evaluator, check_fit, check_sampler


@pytest.mark.parametrize("name", [name for name in PROTOCOLS.shipped if name not in FITS.shipped])
def test_evaluators(name: str) -> None:
    own = {"metadata_only": {"metadata": ["sex", "site"]}, "attention": {"size": 64, "stride": 8, "images": 4}}
    check_evaluator(name, own.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS.shipped)
def test_fits(name: str) -> None:
    columns = {"metadata": []} if "metadata" in FITS.find(name).Config.model_fields else {}
    rate = 1e-3 if name == "finetune" else 1e-5  # AdamW turns rounding into whole steps, and systems have many layers
    check_fit(name, {"epochs": 2, "batch": 16, "lr": rate, **columns}, processes=2)


@pytest.mark.parametrize("name", ["grid", "random", "curriculum_prior", "qmc"])  # the others think for long
def test_samplers(name: str) -> None:
    check_sampler(name)
