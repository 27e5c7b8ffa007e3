"""Keys that stand in the address of an S3 store: moved into the environment, so that nothing a run writes holds them.

Ray keeps the addresses that it is given in files of its own; processes that it starts inherit the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from dermsearch.errors import UserError
from dermsearch.study.config import Study

S3 = re.compile(r"s3://([^/@\s:]+):([^@\s\"]+)@")
NAMES = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
TOKEN = "AWS_SESSION_TOKEN"  # goes with other keys


@contextmanager
def keys_aside(study: Study, address: str | None) -> Iterator[Study]:
    """The study with no key in its addresses, while the environment has them; refused where they cannot travel."""
    written = study.model_dump_json()
    pairs = {tuple(map(unquote, pair)) for pair in S3.findall(written)}
    if not pairs:
        yield study
        return
    if len(pairs) > 1:
        raise UserError(f"the addresses of '{study.name}' hold different keys; one run reads S3 with one pair of them")
    if address:
        raise UserError(
            "--address: keys in the address of a store do not travel to the machines of a cluster; export "
            f"{' and '.join(NAMES)} there, before Ray is started, and leave them out of the study"
        )
    before = {name: os.environ.pop(name, None) for name in (*NAMES, TOKEN)}
    os.environ.update(zip(NAMES, pairs.pop(), strict=True))
    try:
        yield Study.model_validate_json(S3.sub("s3://", written))
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
