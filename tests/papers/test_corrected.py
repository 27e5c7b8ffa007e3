"""What Table I of SM3 would print: the corrected averages are those that were computed apart from this code."""

import pytest

from dermsearch.papers.corrected import corrected_cells

AVERAGES = {
    ("HcCNN", "Sens|AVG"): 50.9,
    ("HcCNN", "Spec|AVG"): 88.9,
    ("HcCNN", "Prec|AVG"): 62.0,
    ("AMFAM", "Sens|AVG"): 53.5,
    ("AMFAM", "Spec|AVG"): 88.1,
    ("AMFAM", "Prec|AVG"): 57.9,
    ("FM4-FS + SM3", "Prec|AVG"): 74.2,
}
CELLS = {
    ("HcCNN", "Sens|BWV_PRS"): 65.3,
    ("HcCNN", "Spec|BWV_PRS"): 92.2,
    ("HcCNN", "Prec|BWV_PRS"): 66.2,
    ("HcCNN", "Sens|RS_PRS"): 41.5,
    ("HcCNN", "Spec|RS_PRS"): 95.2,
    ("HcCNN", "Prec|RS_PRS"): 75.9,
    ("FM4-FS + SM3", "Prec|STR_IR"): 59.3,
    ("AMFAM", "Sens|DIAG_MEL"): 76.2,
    ("AMFAM", "Prec|DIAG_MEL"): 65.8,
}


@pytest.mark.parametrize(("cell", "value"), {**AVERAGES, **CELLS}.items())
def test_what_would_be_printed(cell, value):
    assert corrected_cells()[cell] == pytest.approx(value, abs=0.051)


def test_other_rows_stand_as_they_are():
    assert {row for row, _ in corrected_cells()} == {"HcCNN", "AMFAM", "FM4-FS + SM3"}
    assert not any(column.startswith("AUC") for _, column in corrected_cells())
