"""What a search knows: the stages that it has asked for, what came out of them, and which failed."""

from __future__ import annotations

from collections.abc import Callable

from dermsearch.search.space.proposal import Proposal


class Known:
    """Shared by the proposer, which writes it, and the sampler, which reads it.

    A stage is named by the proposal that ends with it. Without `sharing` every proposal trains all of its stages
    anew and only its own score comes out: what a search over a list of curricula does, kept for comparison.
    """

    def __init__(
        self,
        price: Callable[[Proposal], float] | None = None,
        sharing: bool = True,
        fits: Callable[[Proposal], bool] = lambda proposal: True,
    ) -> None:
        self.price = price or (lambda stage: 1.0)  # of one stage, whatever leads up to it
        self.fits = fits  # may it be at all?
        self.sharing = sharing
        self.values: dict[Proposal, float] = {}  # every stage that has a score
        self.asked: set[Proposal] = set()  # every stage that will have one, has one or has failed
        self.failed: set[Proposal] = set()
        self.pruned: set[Proposal] = set()  # stages that are not gone on from, though most have a score
        self.waiting: list[Proposal] = []  # candidates that a sampler proposed and whose turn has not come

    def open(self, proposal: Proposal) -> bool:
        """May a sampler propose it? Not what waits for its turn already."""
        return proposal not in self.waiting and self.worth_asking(proposal)

    def worth_asking(self, proposal: Proposal) -> bool:
        """Not if its score is known or on its way, nor behind what failed or was pruned, nor what cannot be."""
        if proposal in self.asked or self.cut(proposal) or not self.fits(proposal):
            return False
        return not self.failed or not any(stage in self.failed for stage in stages(proposal))

    def cut(self, proposal: Proposal) -> bool:
        """Is it, or a stage before it, pruned?"""
        return bool(self.pruned) and any(stage in self.pruned for stage in stages(proposal))

    def cost(self, proposal: Proposal) -> float:
        """The price of the stages that nobody has asked for yet. It must not depend on what a store happens to hold:
        a run that was interrupted finds more there, and would propose something else."""
        return sum(self.price(stage) for stage in stages(proposal) if not self.sharing or stage not in self.asked)

    def ask(self, proposal: Proposal) -> None:
        """Its stages are on their way."""
        self.asked.update(stages(proposal) if self.sharing else (proposal,))

    def tell(self, stage: Proposal, value: float | None) -> None:
        """The score of a stage; None where it failed."""
        self.asked.add(stage)
        if value is None:
            self.failed.add(stage)
        else:
            self.values[stage] = value


def stages(proposal: Proposal) -> list[Proposal]:
    """The proposals that end with each stage of this one, itself last."""
    return [*(proposal.prefix(depth) for depth in range(1, len(proposal.curriculum))), proposal]
