"""What chest data sets share: of which one finding a radiograph is, where it shows no other."""

from __future__ import annotations

from collections.abc import Mapping

from dermsearch.data.domain import FINDINGS

ABSENT, PRESENT = FINDINGS["pneumonia"]
ALONE = {name: name for name in FINDINGS["finding"][1:]}  # "none" means that nothing is known where sources read words
NONE = "no finding"
FINDING = {NONE: FINDINGS["finding"][0], **ALONE}
EACH = {ABSENT: ABSENT, PRESENT: PRESENT}


def alone(told: Mapping[str, str | None], clear: bool, besides: tuple[str, ...] = ()) -> str | None:
    """The finding that stands alone, of those that the domain names; None where it is another, several or unsure.

    `told` says of each finding whether it is there, None where nobody is sure; `besides` do not count.
    """
    if clear:
        return NONE
    there = [name for name, state in told.items() if state != ABSENT and name not in besides]
    return there[0] if len(there) == 1 and told[there[0]] == PRESENT and there[0] in ALONE else None
