"""The JSON schema of a study file, by which editors complete and check it: made from the models, so it is never old.

A setting of a task may be searched, so wherever a number, word or truth may stand, so may {choice: [...]} and the like.
What only the whole study can tell, such as a batch that does not divide among workers, `dermsearch plan` tells.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from dermsearch.errors import UserError
from dermsearch.run.reference import comments, described, first_line, registry_of
from dermsearch.study.config import Study, Train

Schema = dict[str, Any]
SEARCHED: Schema = {
    "type": "object",
    "oneOf": [{"required": [word]} for word in ("choice", "log", "range", "select")],
    "properties": {
        "choice": {"type": "array", "minItems": 1},
        "log": {"type": "array", "minItems": 2, "maxItems": 2},
        "range": {"type": "array", "minItems": 2},
        "select": {"type": "array", "minItems": 2, "items": {"type": "number"}},
        "epochs": {"type": "integer", "minimum": 1},
        "by": {"enum": ["probe", "loss"]},
    },
    "additionalProperties": False,
}
LABELLED: Schema = {"type": ["string", "integer"]}  # all, 20 or 10%


def study_schema() -> Schema:
    """The whole schema, with every task and protocol that is installed."""
    schema = Study.model_json_schema()
    definitions = schema["$defs"]
    definitions["Searched"] = SEARCHED
    for model in models(Study):
        for name, about in comments(model).items():
            at = schema if model is Study else definitions.get(model.__name__, {})
            at.get("properties", {}).get(name, {}).setdefault("description", about)
    for name, field in fields(Train).items():
        definitions[f"train_{name}"] = field
    training = {name: {"$ref": f"#/$defs/train_{name}"} for name in Train.model_fields}
    tasks = {name: settings("tasks", name, training) for name in registry_of("tasks").names()}
    names = {"type": "array", "items": {"enum": list(tasks)}, "uniqueItems": True}
    definitions["Curricula"]["properties"]["tasks"] = {
        "anyOf": [{"type": "object", "properties": tasks, "additionalProperties": False}, names]
    }
    draws: dict[str, Schema] = {
        "labelled": {"anyOf": [LABELLED, {"type": "array", "items": LABELLED}]},
        "repeats": {"type": "integer"},
    }
    judges = {f"^{name}(@.+)?$": settings("protocols", name, draws) for name in registry_of("protocols").names()}
    schema["properties"]["downstream"] |= {"patternProperties": judges, "additionalProperties": False}
    for section in ("Data", "Objective"):
        definitions[section]["properties"]["labelled"] = {**LABELLED, "type": [*LABELLED["type"], "null"]}
    schema["properties"]["published"] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    schema["properties"]["quick"] = {"type": "object", "description": "what --quick lays over the rest"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A study of dermsearch"}


def settings(kind: str, name: str, more: Mapping[str, Schema]) -> Schema:
    """What may stand behind a task or protocol: nothing, or some of its settings; of what does not load, anything."""
    try:
        config = getattr(registry_of(kind).find(name), "Config", None)
    except UserError as error:
        return {"description": str(error)}
    own = fields(config) if inspect.isclass(config) and issubclass(config, BaseModel) else {}
    return {
        "type": ["object", "null"],
        "description": first_line(described(kind, name)),
        "properties": {**more, **own},
        "additionalProperties": False,
    }


def fields(model: type[BaseModel]) -> dict[str, Schema]:
    """Each field of a model, as itself or searched."""
    schema = model.model_json_schema()
    about = comments(model)
    found: dict[str, Schema] = {}
    for name, field in schema.get("properties", {}).items():
        told = field.pop("description", about.get(name, ""))
        found[name] = {
            "anyOf": [inlined(field, schema.get("$defs", {})), {"$ref": "#/$defs/Searched"}],
            "description": told,
        }
    return found


def inlined(field: Any, definitions: Mapping[str, Any]) -> Any:
    """A field without references to what stands elsewhere."""
    if isinstance(field, list):
        return [inlined(each, definitions) for each in field]
    if not isinstance(field, dict):
        return field
    if "$ref" in field:
        return inlined(definitions[field["$ref"].rpartition("/")[2]], definitions)
    return {key: inlined(each, definitions) for key, each in field.items()}


def models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A model and those of its fields."""
    found = [model]
    for field in model.model_fields.values():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            found += models(field.annotation)
    return found
