"""What SLIMP learns beside the images' encoders: encoders of tables, projectors, and a patient's phenotype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dermsearch.models.artifact import TABLES, Artifact, Part
from dermsearch.models.heads import mlp
from dermsearch.models.tables import TableEncoder

LESION, PATIENT = "lesion", "patient"


class Nested(nn.Module):
    """Image features and tables of a lesion meet in one space, its patient's lesions and table in another.

    It has only what its losses use: `inner` for the first, encoders of both levels for the second.
    """

    def __init__(
        self,
        dim: int,
        branches: Sequence[str],
        levels: Mapping[str, Mapping[str, Any]],
        out: int = 128,
        inner: bool = True,
        aggregate: str = "features",
        pool: str = "mean",
        scales: Mapping[str, float] | None = None,
    ) -> None:
        """`levels` are the settings of a `TableEncoder` each: of lesions always, of patients where they are used.

        `scales` are what the logarithms of learnt scales begin with, by the loss that each is of.
        """
        super().__init__()
        self.levels = nn.ModuleDict({level: TableEncoder(**told) for level, told in levels.items()})
        self.config: dict[str, Any] = {
            "dim": dim, "branches": list(branches), "levels": {n: e.config for n, e in self.levels.items()}, "out": out,
            "inner": inner, "aggregate": aggregate, "pool": pool, "scales": dict(scales or {}),
        }  # fmt: skip
        width, outer, projected = levels[LESION]["width"], PATIENT in levels, aggregate == "projections"
        both = inner or (outer and projected)
        self.image = nn.ModuleDict({b: mlp(dim, dim, out) for b in branches if both})
        self.table = mlp(width, width, out) if both else None
        # Branches share no axes, so that each is turned before their mean is taken.
        merged = outer and not projected and len(branches) > 1
        self.merge = nn.ModuleDict({b: nn.Linear(dim, dim) for b in branches if merged})
        size = 2 * out if projected else dim + width
        self.phenotype = mlp(size, size, out) if outer else None
        self.person = mlp(width, width, out) if outer else None
        self.attention = nn.Linear(size, 1, bias=False) if outer and pool == "attention" else None
        if self.attention is not None:
            nn.init.zeros_(self.attention.weight)  # it begins as the mean
        starts = self.config["scales"].items()
        self.scales = nn.ParameterDict({n: nn.Parameter(torch.tensor(start)) for n, start in starts})

    def image_projection(self, features: Tensor, branch: str) -> Tensor:
        """(n, dim) features of a branch's images -> (n, out), to be compared with `table_projection` by cosine."""
        return self.image[branch](features)

    def table_projection(self, encoded: Tensor) -> Tensor:
        """(n, width) of the lesions' encoder of tables -> (n, out)."""
        assert self.table is not None, "no inner loss was trained"
        return self.table(encoded)

    def lesions(
        self, features: Mapping[str, Tensor], there: Mapping[str, Tensor], encoded: Tensor, unit: bool = False
    ) -> Tensor:
        """(n, size): what is known of each lesion, image and table side by side, the mean over the images it has."""
        if self.config["aggregate"] == "projections":
            features = {b: F.normalize(self.image_projection(u, b), dim=1) for b, u in features.items()}
            encoded = F.normalize(self.table_projection(encoded), dim=1)
        elif self.merge:
            features = {b: self.merge[b](u) for b, u in features.items()}
        share = {b: there[b][:, None].to(encoded.dtype) for b in features}
        seen = torch.stack([u * share[b] for b, u in features.items()]).sum(0)
        seen = seen / torch.stack(list(share.values())).sum(0).clamp(min=1)
        if unit:
            seen, encoded = F.normalize(seen, dim=1), F.normalize(encoded, dim=1)
        return torch.cat([seen, encoded], 1)

    def pooled(self, lesions: Tensor, place: Tensor, patients: int) -> Tensor:
        """(n, size) lesions, each with its patient's place -> (patients, size); of a patient without any, zeros."""
        return pooled(lesions, place, patients, self.config["pool"], self.attention)

    def take_over(self, artifact: Artifact, scales: bool = True) -> set[str]:
        """Begin as the stage before left off, with its learnt scales or without; the levels whose encoders could be."""
        part, taken = artifact.get(TABLES), set[str]()
        if part is None:
            return taken
        own, left = self.state_dict(), ("levels.",) if scales else ("levels.", "scales.")
        heads = {n: v for n, v in part.state.items() if not n.startswith(left) and n in own}
        self.load_state_dict({n: v for n, v in heads.items() if v.shape == own[n].shape}, strict=False)
        for level, encoder in self.levels.items():
            prefix, config = f"levels.{level}.", part.config["levels"].get(level)
            state = {n.removeprefix(prefix): v for n, v in part.state.items() if n.startswith(prefix)}
            if config is not None and encoder.take_over(config, state):  # type: ignore[operator]
                taken.add(level)
        return taken

    def part(self) -> Part:
        """These as they are now, to be handed on."""
        return Part.of(self, self.config)


def nested(part: Part) -> Nested:
    """What a stage handed on, on the CPU."""
    made = Nested(**part.config)
    part.fill(made)
    return made


def pooled(
    lesions: Tensor, place: Tensor, patients: int, how: str = "mean", attention: nn.Module | None = None
) -> Tensor:
    """Rows of lesions -> a row for each patient: their mean, the largest of each number, or a weighted mean."""
    empty = lesions.new_zeros(patients, lesions.shape[1])
    if how == "max":
        return empty.scatter_reduce(0, place[:, None].expand_as(lesions), lesions, "amax", include_self=False)
    weight = lesions.new_ones(len(lesions), 1)
    if attention is not None:
        score = attention(lesions)
        top = score.detach().new_zeros(patients, 1)
        top = top.scatter_reduce(0, place[:, None], score.detach(), "amax", include_self=False)
        weight = (score - top[place]).exp()
    total = lesions.new_zeros(patients, 1).index_add(0, place, weight)
    return empty.index_add(0, place, lesions * weight) / total.clamp(min=1e-12)
