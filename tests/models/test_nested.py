"""What SLIMP pools of a lesion: projections of length one, or each modality's features after a turn of its own."""

from __future__ import annotations

from typing import Any

import torch

from dermsearch.models.nested import Nested

SIZE = {"name": "size", "kind": "number", "vocabulary": (), "mean": 0.0, "spread": 1.0, "level": "lesion"}
LEVELS: dict[str, dict[str, Any]] = {
    "lesion": {"columns": [SIZE], "width": 4},
    "patient": {"columns": [{**SIZE, "name": "age", "level": "patient"}], "width": 4},
}


def lesions(made: Nested, u: dict[str, torch.Tensor], m: torch.Tensor) -> torch.Tensor:
    return made.lesions(u, {b: torch.ones(len(m), dtype=torch.bool) for b in u}, m).detach()


def test_projections_that_are_pooled_have_length_one() -> None:
    torch.manual_seed(0)
    made, u, m = Nested(6, ["derm"], LEVELS, out=3, aggregate="projections"), torch.randn(5, 6), torch.randn(5, 4)
    image, table = lesions(made, {"derm": u}, m).split(3, dim=1)
    for found, projected in ((image, made.image_projection(u, "derm")), (table, made.table_projection(m))):
        torch.testing.assert_close(found, torch.nn.functional.normalize(projected, dim=1).detach())


def test_features_of_several_modalities_are_turned_before_their_mean_is_taken() -> None:
    torch.manual_seed(0)
    made, m = Nested(6, ["derm", "clinic"], LEVELS, out=3), torch.randn(5, 4)
    u = {b: torch.randn(5, 6) for b in ("derm", "clinic")}
    mean = (made.merge["derm"](u["derm"]) + made.merge["clinic"](u["clinic"])) / 2
    torch.testing.assert_close(lesions(made, u, m), torch.cat([mean, m], 1).detach())
    alone = Nested(6, ["derm"], LEVELS, out=3)
    assert not alone.merge and torch.equal(lesions(alone, {"derm": u["derm"]}, m), torch.cat([u["derm"], m], 1))
