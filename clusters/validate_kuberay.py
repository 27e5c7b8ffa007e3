"""Do the files of kuberay/ fit KubeRay's own schemas? Offline, with what `pip install -e ".[test]"` brings.

python clusters/validate_kuberay.py PATH/ray.io_rayclusters.yaml PATH/ray.io_rayjobs.yaml

The arguments are the custom resource definitions of the KubeRay you have: ray-operator/config/crd/bases in its
repository, or `kubectl get crd rayjobs.ray.io -o yaml`. A misspelt field is an error, as it is for `kubectl apply`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jsonschema
import yaml

FOLDER = Path(__file__).parent / "kuberay"


def schemas(definition: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The JSON schema of each (apiVersion, kind) that a custom resource definition serves."""
    spec = definition["spec"]
    return {
        (f"{spec['group']}/{version['name']}", spec["names"]["kind"]): strict(version["schema"]["openAPIV3Schema"])
        for version in spec["versions"]
        if version["served"]
    }


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of Kubernetes as plain JSON schema: what is not named is refused; a number or a text is either."""
    schema = dict(schema)
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in schema:
        schema["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            schema[inner] = strict(schema[inner])
    return schema


def problems(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """What is wrong with a document, a line each: where, and why."""
    # What every object has: the definitions leave it to Kubernetes.
    open_metadata = {**schema["properties"], "metadata": {"type": "object", "required": ["name"]}}
    checker = jsonschema.Draft202012Validator({**schema, "properties": open_metadata})
    return [f"{e.json_path}: {e.message}" for e in sorted(checker.iter_errors(document), key=lambda e: e.json_path)]


def main(definitions: list[str]) -> int:
    """Print a line per document; 1 if any has a problem or none could be checked."""
    known = {key: s for path in definitions for key, s in schemas(yaml.safe_load(Path(path).read_text())).items()}
    checked = failed = 0
    for path in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            kind = document["apiVersion"], document["kind"]
            if kind not in known:
                print(f"{path.name}: {document['kind']}: not checked, no definition given")
                continue
            found = problems(document, known[kind])
            print(f"{path.name}: {document['kind']}:", *(found or ["fits"]), sep="\n  " if found else " ")
            checked, failed = checked + 1, failed + bool(found)
    return int(failed > 0 or not checked)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
