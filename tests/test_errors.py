"""Messages for users: without secrets, and no longer than anybody reads."""

from __future__ import annotations

from dermsearch.errors import LONGEST, UserError


def test_a_message_of_what_a_damaged_file_says_is_cut_in_its_middle() -> None:
    text = str(UserError(f"no scores with protocol '{'9' * 20_000}': choose from: knn, linear"))
    assert len(text) == LONGEST
    assert text.startswith("no scores with protocol '999") and text.endswith("999': choose from: knn, linear")
    assert str(UserError("a" * LONGEST)) == "a" * LONGEST


def test_an_address_is_told_without_its_keys() -> None:
    assert str(UserError("'s3://AKIA:se/cret@bucket/x' is gone")) == "'s3://bucket/x' is gone"
