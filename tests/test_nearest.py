"""What a message takes a misspelt name for."""

import pytest

from dermsearch.errors import nearest


@pytest.mark.parametrize(
    ("name", "allowed", "said"),
    [
        ("melanoma", ["mean", "diagnosis"], "choose from: mean, diagnosis"),
        ("dermoscopic", ["derm", "clinic"], "did you mean 'derm'?"),
        ("diag", ["diagnosis", "streaks"], "did you mean 'diagnosis'?"),
        ("accuracy", ["balanced_accuracy", "auc"], "did you mean 'balanced_accuracy'?"),
        ("trian", ["train", "val"], "did you mean 'train'?"),
        ("dashed", ["dotted", "none"], "did you mean 'dotted'?"),
        ("zzz", [], "none is available"),
    ],
)
def test_the_nearest_name(name: str, allowed: list[str], said: str) -> None:
    assert nearest(name, allowed) == said
