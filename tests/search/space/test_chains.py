"""Chains that cannot be are refused when the study is read, by the field that is wrong."""

import pytest

from dermsearch.errors import UserError
from dermsearch.run.check import check
from dermsearch.study.config import Study


def study(encoder: str, tasks: dict) -> Study:
    return Study.model_validate(
        {"name": "s", "encoder": {"name": encoder}, "curriculum": {"tasks": tasks, "length": [1, len(tasks)]}}
    )


@pytest.mark.parametrize(
    "encoder, task, message",
    [
        ("resnet18", "ibot", "encoder.name: must be a vision transformer"),
        ("vit_tiny_patch16_224", "colorme", "encoder.name: must make maps of several sizes"),
    ],
)
def test_a_task_and_an_encoder_that_do_not_suit(encoder, task, message):
    with pytest.raises(UserError) as error:
        check(study(encoder, {"rotation": {}, task: {}}))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_dino_and_ibot_follow_each_other_on_a_transformer():
    space = check(study("vit_tiny_patch16_224", {"dino": {"out": 64}, "ibot": {"out": 64}}))
    assert len(list(space.curricula())) == 4
