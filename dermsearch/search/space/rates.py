"""A learning rate of several: begun with each, for a few epochs, and gone on with the best.

{select: [0.01, 0.03, 0.1], epochs: 2, by: probe} of a study file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dermsearch.errors import UserError, nearest
from dermsearch.study.wording import say


@dataclass(frozen=True)
class Selection:
    """Rates that a stage is begun with, and after how many epochs which of them goes on."""

    rates: tuple[float, ...]
    epochs: int
    by: str  # probe: the study's objective | loss: of the task itself

    @property
    def epochs_in_vain(self) -> int:
        """Epochs with rates that do not go on."""
        return (len(self.rates) - 1) * self.epochs


def selection(field: str, value: dict[str, Any]) -> Selection:
    """Read it from a study file, or say in one sentence what is wrong with it."""
    unknown = [name for name in value if name not in ("select", "epochs", "by")]
    if unknown:
        raise UserError(f"{field}.{unknown[0]}: unknown field; {nearest(unknown[0], ('select', 'epochs', 'by'))}")
    rates, wanted = value["select"], "two rates or more above 0, up to 1e9"
    if not isinstance(rates, list) or len(rates) < 2 or not all(_rate(rate) for rate in rates):
        raise UserError(f"{field}.select: must be {wanted}, such as [0.01, 0.1], not {say(rates)}")
    if len(set(rates)) != len(rates):
        raise UserError(f"{field}.select: must name each rate once, not {say(rates)}")
    epochs, by = value.get("epochs"), value.get("by", "probe")
    if type(epochs) is not int or epochs < 1:
        wrong = "is missing" if epochs is None else f"must be a whole number above 0, not {say(epochs)}"
        raise UserError(f"{field}.epochs: {wrong}: after so many the rates are compared")
    if by not in ("probe", "loss"):
        raise UserError(f"{field}.by: must be probe or loss, not {say(by)}")
    return Selection(tuple(float(rate) for rate in rates), epochs, by)


def _rate(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= 1e9
