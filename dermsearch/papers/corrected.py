"""What SM3's Table I would print without its slips: each row's slip is known, and the class counts give the rest.

HcCNN           of two labels, sensitivity and specificity are those of the absent class: they change places
AMFAM           truth and prediction changed places: sensitivity and precision do, and what stands for specificity is
                the negative predictive value
FM4-FS + SM3    the precision of streaks repeats that of pigmentation
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from dermsearch.papers.published import published_rows

RATES = ("Sens", "Spec", "Prec")
OF_THE_ABSENT = ("BWV_PRS", "RS_PRS")
REPEATED = {("FM4-FS + SM3", "Prec|STR_IR"): 59.3}  # what its sensitivity and specificity leave for the precision
Cell = tuple[str, str]  # row, column


def corrected_cells() -> dict[Cell, float]:
    """The cells that change, in percent with as many digits as there are; averages with them."""
    printed = {(r["row"], r["column_metric"]): float(r["value"]) for r in published_rows("sm3_table1")}
    counts = {
        f"{r['label']}_{r['class']}": (int(r["positive"]), int(r["total"]))
        for r in published_rows("derm7pt_test_counts")
        if r["named"] == "yes"
    }
    found: dict[Cell, float] = dict(REPEATED)
    for at, (positive, total) in counts.items():
        if at in OF_THE_ABSENT:
            found |= _named("HcCNN", at, _of_the_present(_rates(printed, "HcCNN", at), positive, total - positive))
        found |= _named("AMFAM", at, _not_transposed(_rates(printed, "AMFAM", at), positive, total - positive))
    for row, rate in {(row, column.partition("|")[0]) for row, column in found}:
        cells = [(row, f"{rate}|{at}") for at in counts]
        found[row, f"{rate}|AVG"] = fmean(found.get(cell, printed[cell]) for cell in cells)
    return {cell: value for cell, value in found.items() if f"{value:.1f}" != f"{printed[cell]:.1f}"}


def _rates(printed: Mapping[Cell, float], row: str, at: str) -> list[float]:
    return [printed[row, f"{rate}|{at}"] / 100 for rate in RATES]


def _named(row: str, at: str, rates: tuple[float, float, float]) -> dict[Cell, float]:
    return {(row, f"{rate}|{at}"): 100 * value for rate, value in zip(RATES, rates, strict=True)}


def _of_the_present(rates: list[float], positive: int, negative: int) -> tuple[float, float, float]:
    """From those of the other class: both rates change places, and counts give the precision."""
    spec, sens, _ = rates
    hits, alarms = round(sens * positive), round((1 - spec) * negative)
    return sens, spec, hits / (hits + alarms)


def _not_transposed(rates: list[float], positive: int, negative: int) -> tuple[float, float, float]:
    """From precision, negative predictive value and sensitivity, as they stand in the print."""
    prec, npv, sens = rates
    hits = round(sens * positive)
    # Where none of those predicted is right, what is left to the negative predictions tells how many they are.
    none = max(0, negative - round((positive - hits) * npv / (1 - npv)))
    alarms = round(hits / prec - hits) if prec else none
    return sens, 1 - alarms / negative, prec
