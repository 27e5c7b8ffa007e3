"""Where weights lie that `encoder.weights` names: a file, an exported folder, or what somebody else pre-trained.

`imagenet` is timm's own choice for an architecture, `a1_in1k` or `resnet18.a1_in1k` a tag of timm's, `hf-hub:ORG/NAME`
any repository of the Hugging Face hub. These are looked for in the hub's cache folder on this machine (HF_HOME), and
downloaded into it once where they are not there. The driver alone asks for them: workers take weights from the stage
store, and may have no network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import timm
from huggingface_hub import constants, errors

from dermsearch.errors import UserError, first_line, nearest

HUB, IMAGENET = "hf-hub:", "imagenet"
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
MODEL, CONFIG = "model.safetensors", "config.json"
FILES = (MODEL, "pytorch_model.bin")  # of a repository, the first that it has


@dataclass(frozen=True)
class Located:
    """A file of weights on this machine, and where it came from, in words."""

    path: Path
    origin: str


def located(weights: str, name: str) -> Located:
    """The file of weights for the architecture `name`, downloaded if need be; UserError where there is none."""
    if is_path(weights):
        path = Path(weights).expanduser()
        exported = (path / CONFIG).is_file() and (path / MODEL).is_file()
        return Located(path / MODEL if exported else path, weights)
    said = f"encoder.weights: '{weights}'"
    if weights.startswith(HUB):
        return fetched(weights.removeprefix(HUB), FILES, said)
    return fetched(*pretrained(weights, name, said), said)


def is_path(weights: str) -> bool:
    """Is it the path of a file or folder, rather than a name?"""
    return not weights.startswith(HUB) and ("/" in weights or Path(weights).suffix in ENDINGS)


def pretrained(weights: str, name: str, said: str) -> tuple[str, Sequence[str]]:
    """The repository and files of what timm calls by that tag."""
    of, _, tag = weights.partition(".")
    if not (tag and timm.is_model(of)):
        of, tag = name, weights
    if of != name:
        raise UserError(f"{said} are weights of {of}, not of encoder.name, '{name}'")
    known = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")]
    if not known:
        raise UserError(f"{said}: timm has no pretrained weights for {name}; name a file or hf-hub:ORG/NAME")
    if weights != IMAGENET and tag not in known:
        hint = nearest(tag, [IMAGENET, *known])
        raise UserError(f"{said} is no file ({', '.join(ENDINGS[:3])}) and none of timm's weights for {name}; {hint}")
    config = timm.get_pretrained_cfg(name if weights == IMAGENET else f"{name}.{tag}")
    if config is None or not config.hf_hub_id:
        where = f"; download {config.url} and name that file" if config is not None and config.url else ""
        raise UserError(f"{said}: timm has these weights in no repository of the hub{where}")
    given = config.hf_hub_filename
    return config.hf_hub_id, FILES if not given else (str(Path(given).with_suffix(".safetensors")), given)


def fetched(repository: str, files: Sequence[str], said: str) -> Located:
    """The first of these files that a repository has, from the hub's cache or else from the hub.

    What is in the cache is taken as it is: the hub is not asked whether it has another by now.
    """
    name, _, revision = repository.partition("@")
    state = revision or None
    cache = constants.HF_HUB_CACHE
    try:
        for file in files:
            path = huggingface_hub.try_to_load_from_cache(name, file, revision=state)
            if isinstance(path, str):
                return of_cache(Path(path), name)
        for file in files:
            try:
                return of_cache(Path(huggingface_hub.hf_hub_download(name, file, revision=state)), name)
            except errors.RemoteEntryNotFoundError:
                continue
    except (errors.HFValidationError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UserError(
            f"{said}: the hub has no repository '{repository}', or it is not open: {first_line(error)}"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        why = first_line(error)
        if constants.is_offline_mode():
            why = "HF_HUB_OFFLINE is set"
        elif isinstance(error, errors.LocalEntryNotFoundError):
            why = f"no answer from {constants.ENDPOINT}"
        raise UserError(
            f"{said}: {name} is not in the hub's cache, {cache}, and cannot be downloaded ({why}); fetch it where "
            f"there is a network, by `hf download {name} {files[0]}`, and copy that folder here, or name a file"
        ) from None
    raise UserError(f"{said}: {name} has no {' or '.join(files)}")


def of_cache(path: Path, repository: str) -> Located:
    """A file of the hub's cache: which state of its repository it is of is in its path."""
    state = f"{path.name} of {repository} at {path.parent.name[:12]}"
    return Located(path, f"{state}, in the hub's cache {constants.HF_HUB_CACHE}")


def architecture_of(weights: str) -> str | None:
    """The architecture that weights say they are of, by their tag or the config beside them; None of a bare file."""
    if is_path(weights):
        path = Path(weights).expanduser()
        config = (path if path.is_dir() else path.parent) / CONFIG
    elif weights.startswith(HUB):
        config = fetched(weights.removeprefix(HUB), [CONFIG], f"encoder.weights: '{weights}'").path
    else:
        of, _, tag = weights.partition(".")
        return of if tag and timm.is_model(of) else None
    try:
        return str(json.loads(config.read_text("utf-8"))["architecture"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
