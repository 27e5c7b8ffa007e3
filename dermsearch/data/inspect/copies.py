"""Made cases held against the real ones that they were made after: is any nearly the picture of a training case?"""

from __future__ import annotations

from dermsearch.data.inspect.check import OK, WARNING, Answer
from dermsearch.data.prepare.lookalikes import copies
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.words import many

EXAMPLES = 3


def copied(made: CaseStore, real: CaseStore | None) -> Answer:
    """How many are, as an answer of `check`; without the real cases, that nobody has looked."""
    if real is None:
        return WARNING, "not looked for: --real names the store that these cases were made after"
    if made.settings.get("source") != "made":
        raise UserError(f"--real: {made.folder} holds no made cases; `dermsearch data make` makes some")
    if made.settings["of"] != real.fingerprint:
        raise UserError(f"--real: these cases were made after other ones than those in {real.folder}")
    found = [pair for modality in made.modalities for pair in copies(made, real, modality)]
    if not found:
        return OK, f"none of {many(len(made), 'made case')} is nearly the same picture as a training case"
    few = "".join(f", {a} as {b}" for a, b in found[:EXAMPLES])
    more = f" and {len(found) - EXAMPLES:,} more" if len(found) > EXAMPLES else ""
    return WARNING, f"{len(found):,} of {len(made):,} are nearly the same picture as a training case{few}{more}"
