"""Whether the numbers of a results table can be true, and which one mistake explains those that cannot.

A sensitivity is a whole number of cases over the positives, a specificity one over the rest, and the precision
follows from both. So three printed numbers and two counts tell a good table from a confusion matrix that was
transposed, a class mixed up, a cell copied from elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dermsearch.papers.counts import Counts, Fits, Printed, in_digits, mean_bounds, other_positives, rates

TRIPLE = ("sens", "spec", "prec")
CONSISTENT = "consistent"
# What may stand in the three columns. Each explains all three cells to the last digit, or it is not the one.
READINGS: dict[str, tuple[str, str, str]] = {
    CONSISTENT: ("sens", "spec", "prec"),
    "transposed": ("prec", "npv", "sens"),
    "other class positive": ("spec", "sens", "npv"),
    "other class positive, transposed": ("npv", "prec", "spec"),
    "columns Sens and Spec exchanged": ("spec", "sens", "prec"),
    "columns Sens and Prec exchanged": ("prec", "spec", "sens"),
    "columns Spec and Prec exchanged": ("sens", "prec", "spec"),
}
ANOTHER, LAST_DIGIT, ONE_CELL, OTHER_COUNTS, UNEXPLAINED = (
    "another class",
    "last digit",
    "one cell wrong",
    "other counts",
    "unexplained",
)
MEANING = {
    "transposed": "the confusion matrix is transposed: Sens is the precision, Prec the sensitivity, Spec the NPV",
    "other class positive": "computed with the other class (or classes) as the positive one",
    "other class positive, transposed": "computed with the other class as positive, from a transposed matrix",
    ANOTHER: "these are the numbers of another class of the label",
    LAST_DIGIT: "off by one unit of the last digit",
    ONE_CELL: "one cell contradicts the others",
    OTHER_COUNTS: "not from these counts: another split, or a mean over runs",
    UNEXPLAINED: "no single mistake explains these numbers",
}
ORDER = [*READINGS, ANOTHER, ONE_CELL, LAST_DIGIT, OTHER_COUNTS, UNEXPLAINED]


@dataclass(frozen=True)
class Claim:
    """What a table prints of one label in one row, and the counts it should agree with."""

    row: str
    label: str
    cells: Mapping[str, Printed]  # sens, spec, prec; others, such as an AUC, only join in means
    counts: Counts

    @property
    def triple(self) -> dict[str, Printed]:
        """The cells that counts can contradict."""
        return {name: self.cells[name] for name in TRIPLE if name in self.cells}


@dataclass(frozen=True)
class Finding:
    """The verdict on one claim. `true` holds the rates by the counts, as fractions, where they are known."""

    claim: Claim
    verdict: str
    hits: int | None = None
    false_alarms: int | None = None
    fits: int = 0  # how many pairs of counts give the same digits
    true: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def matrix(self) -> tuple[int, int, int, int] | None:
        """True positives, false positives, false negatives, true negatives."""
        if self.hits is None or self.false_alarms is None:
            return None
        counts = self.claim.counts
        return self.hits, self.false_alarms, counts.positive - self.hits, counts.negative - self.false_alarms


@dataclass(frozen=True)
class Mean:
    """A printed mean over labels: what the printed cells give, and what it becomes with every kind of repair."""

    row: str
    label: str
    printed: Mapping[str, Printed]
    wrong: tuple[str, ...]  # metrics whose printed mean is not that of the printed cells
    plain: Mapping[str, float]  # of the printed cells, in percent
    repaired: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # verdict -> up to and with its repairs


@dataclass(frozen=True)
class RowAudit:
    """All findings of one row of a table."""

    row: str
    findings: tuple[Finding, ...]
    means: tuple[Mean, ...] = ()

    @property
    def verdicts(self) -> Counter[str]:
        """How many labels have which verdict, the most frequent first."""
        return in_order(finding.verdict for finding in self.findings)

    @property
    def consistent(self) -> bool:
        """Whether every label and every mean is as it must be."""
        return set(self.verdicts) <= {CONSISTENT} and not any(mean.wrong for mean in self.means)


def in_order(verdicts: Iterable[str]) -> Counter[str]:
    """Verdicts counted: the most frequent first, then in the order in which they are tried."""
    found = Counter(verdicts)
    return Counter({v: found[v] for v in sorted(found, key=lambda v: (-found[v], ORDER.index(v)))})


def audit_row(claims: Sequence[Claim], means: Iterable[tuple[str, Mapping[str, Printed], Sequence[str]]]) -> RowAudit:
    """Judge one row; `means` are its printed means: name, cells, and the labels they are over."""
    findings = [judge(claim) for claim in claims]
    read = Counter(finding.verdict for finding in findings if finding.verdict in READINGS)
    explicable = read.total() + sum(f.verdict == LAST_DIGIT or f.claim.counts.hits is not None for f in findings)
    usual = read.most_common(1)[0][0] if read else CONSISTENT
    if usual != CONSISTENT:  # a label that fits as it is but also as the rest of its row is read like the rest
        findings = [explained(f.claim, usual) or f if f.verdict == CONSISTENT else f for f in findings]
    if len(claims) > 2 and 2 * explicable < len(claims):
        # Where most labels fit in no way at all the row has other counts, and what fits one label is chance.
        findings = [counted_otherwise(claim) for claim in claims]
    elif len(claims) > 1:
        findings = [name_the_copied(finding, claims) for finding in findings]
    row = claims[0].row
    return RowAudit(row, tuple(findings), tuple(mean_of(row, *mean, findings) for mean in means))


def judge(claim: Claim) -> Finding:
    """The first explanation that fits: exact ones first, then a slip of the last digit, then one wrong cell."""
    if not claim.triple:
        return Finding(claim, CONSISTENT)
    for reading in READINGS:
        if reading == CONSISTENT or len(claim.triple) > 1:
            finding = explained(claim, reading)
            if finding:
                return finding
    if claim.counts.hits is not None:
        return from_counts(claim)
    return another_class(claim) or slipped(claim) or one_cell(claim) or counted_otherwise(claim)


def explained(claim: Claim, reading: str) -> Finding | None:
    """The claim read in one of the ways of `READINGS`, if integers agree with all its cells."""
    meant = dict(zip(TRIPLE, READINGS[reading], strict=True))
    cells = {meant[name]: cell for name, cell in claim.triple.items()}
    return fitted(claim, reading, {name: cell.bounds() for name, cell in cells.items()}, cells)


def fitted(
    claim: Claim, verdict: str, bounds: Mapping[str, tuple[float, float]], cells: Mapping[str, Printed]
) -> Finding | None:
    """The finding with the nearest counts within the bounds, if there are any."""
    fits = Fits(bounds, claim.counts)
    if not len(fits):
        return None
    hits, alarms = fits.nearest({name: cell.value / 100 for name, cell in cells.items() if name in bounds})
    true = rates(hits, alarms, claim.counts)
    if len(bounds) < 2 and len(fits) > 1:  # one rate alone says nothing of the others
        return Finding(claim, verdict, fits=len(fits), true={name: true[name] for name in bounds})
    return Finding(claim, verdict, hits, alarms, len(fits), true)


def from_counts(claim: Claim) -> Finding:
    """Where the predictions are known, nothing is to be guessed: what the numbers must be."""
    hits, alarms = claim.counts.hits or 0, claim.counts.false_alarms or 0
    return Finding(claim, UNEXPLAINED, hits, alarms, 1, rates(hits, alarms, claim.counts), "not what the matrix gives")


def another_class(claim: Claim) -> Finding | None:
    """Whether the numbers are those of another class of the same label; in a label of two that is a reading."""
    if len(claim.triple) < len(TRIPLE) or len(claim.counts.others) < 2:
        return None
    bounds = {name: cell.bounds() for name, cell in claim.triple.items()}
    names = [n for n, count in claim.counts.others if len(Fits(bounds, Counts(count, claim.counts.total)))]
    return Finding(claim, ANOTHER, note=f"fits {' or '.join(names)}") if names else None


def slipped(claim: Claim) -> Finding | None:
    """One cell, else any, is off by one unit of its last digit."""
    for loose in [*([name] for name in claim.triple), list(claim.triple)]:
        bounds = {name: cell.bounds(1.5 if name in loose else 0.5) for name, cell in claim.triple.items()}
        finding = fitted(claim, LAST_DIGIT, bounds, claim.triple)
        if finding:
            return finding
    return None


def one_cell(claim: Claim) -> Finding | None:
    """Two of three cells agree, exactly or but for a unit of a last digit, and give the third."""
    if len(claim.triple) < len(TRIPLE):
        return None
    for units in (0.5, 1.5):
        for wrong in ("prec", "spec", "sens"):
            bounds = {name: cell.bounds(units) for name, cell in claim.triple.items() if name != wrong}
            finding = fitted(claim, ONE_CELL, bounds, claim.triple)
            if finding and finding.fits <= 3:  # many would be no evidence
                must = {name: as_printed(finding.true[name], claim, name) for name in claim.triple}
                off = [n for n in bounds if must[n] != str(claim.cells[n])]  # by the last digit, with the wider bounds
                if_so = "".join(f" if {name.capitalize()} is {must[name]}" for name in off)
                return replace(finding, note=f"{wrong.capitalize()} must be {must[wrong]}{if_so}")
    return None


def counted_otherwise(claim: Claim) -> Finding:
    """Which numbers of positives the cells would fit."""
    if not claim.triple:
        return Finding(claim, CONSISTENT)  # nothing that counts could contradict
    found = other_positives(claim.triple, claim.counts)
    if not found:
        return Finding(claim, UNEXPLAINED, note="no number of positives fits")
    listed = ", ".join(map(str, found))
    return Finding(claim, OTHER_COUNTS, note=f"{listed} positives would fit, not {claim.counts.positive}")


def name_the_copied(finding: Finding, claims: Sequence[Claim]) -> Finding:
    """Say of a wrong cell that it stands in another label of the row as well."""
    if finding.verdict not in (ONE_CELL, UNEXPLAINED, OTHER_COUNTS):
        return finding
    claim = finding.claim
    for other in claims:
        same = [
            name
            for name, cell in claim.triple.items()
            if other.label != claim.label and cell == other.cells.get(name) and 0 < cell.value < 100
        ]
        wrong = [
            n for n in same if n not in finding.true or str(claim.cells[n]) != as_printed(finding.true[n], claim, n)
        ]
        if wrong:
            cells = " and ".join(f"{name.capitalize()} {claim.cells[name]}" for name in wrong)
            verb = "repeat" if len(wrong) > 1 else "repeats"
            said = f"{cells} {verb} {other.label}"
            return replace(finding, note="; ".join(filter(None, [finding.note, said])))
    return finding


def as_printed(value: float, claim: Claim, name: str) -> str:
    """A rate with as many digits as the claim prints it with."""
    return in_digits(100 * value, claim.cells[name].digits)


def mean_of(
    row: str, label: str, printed: Mapping[str, Printed], over: Sequence[str], findings: Sequence[Finding]
) -> Mean:
    """A printed mean against that of the printed cells, and what it becomes with every kind of repair added."""
    members = [finding for finding in findings if finding.claim.label in over]
    # A metric with an empty cell in some label has no mean to compare with.
    whole = {n: c for n, c in printed.items() if members and all(n in m.claim.cells for m in members)}
    plain, wrong = {}, []
    for name, cell in whole.items():
        cells = [member.claim.cells[name] for member in members]
        plain[name] = sum(c.value for c in cells) / len(cells)
        low, high = mean_bounds(cells)
        below, above = cell.bounds()
        if low > 100 * above + 1e-9 or high < 100 * below - 1e-9:
            wrong.append(name)
    repaired: dict[str, Mapping[str, float]] = {}
    applied = {CONSISTENT}
    for verdict in in_order(m.verdict for m in members if m.true and m.verdict != CONSISTENT):
        applied.add(verdict)
        repaired[verdict] = {
            name: sum(
                100 * m.true[name] if m.verdict in applied and name in m.true else m.claim.cells[name].value
                for m in members
            )
            / len(members)
            for name in whole
            if name in TRIPLE
        }
    return Mean(row, label, whole, tuple(wrong), plain, repaired)
