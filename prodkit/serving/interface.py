"""The service described in the words of OpenAPI, with the columns of whoever is champion."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from prodkit.data.schema import Schema

__all__ = ["ARROW", "JSON", "NOT_READY", "PREDICT", "UNAUTHORISED", "described", "row_schema"]

JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"


def _refers(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answered(text: str) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": _refers("Problem")}}}


_BODY = {
    "oneOf": [
        {
            "type": "object",
            "required": ["records"],
            "properties": {"records": {"type": "array", "items": _refers("Row")}},
            "additionalProperties": False,
        },
        {
            "type": "object",
            "required": ["columns"],
            "properties": {"columns": _refers("Columns")},
            "additionalProperties": False,
        },
    ]
}
PREDICT: dict[str, Any] = {
    "requestBody": {"required": True, "content": {JSON: {"schema": _BODY}, ARROW: {"schema": {}}}},
    "responses": {
        "200": {
            "description": "One answer a row, in their order.",
            "content": {JSON: {"schema": _refers("Answers")}, ARROW: {"schema": {}}},
        },
        "400": _answered("The body is not what it says."),
        "401": _answered("The token is missing or wrong."),
        "408": _answered("The body took too long."),
        "413": _answered("The body is too large, or holds too many rows."),
        "415": _answered("The format is not known."),
        "422": _answered("The body has another shape."),
        "503": _answered("No version is loaded, or too much is waiting; try again."),
    },
}
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {
        "description": "No version is loaded, so nothing can be answered.",
        "content": {JSON: {"schema": {"type": "object"}}},
    }
}
UNAUTHORISED: dict[int | str, dict[str, Any]] = {401: _answered("The token is missing or wrong.")}
_PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["name", "rule", "found", "fix", "message"],
            "properties": {
                "found": {"type": ["string", "null"]},
                **{name: {"type": "string"} for name in ("name", "rule", "fix", "message")},
            },
        }
    },
}


def described(app: FastAPI, schema: Schema | None, *, generation: int) -> dict[str, Any]:
    """The OpenAPI document; without a champion, rows are any objects."""
    row: dict[str, Any] = row_schema(schema) if schema else {"type": "object"}
    columns = {name: {"type": "array", "items": kind} for name, kind in row.get("properties", {}).items()}
    number: dict[str, Any] = {"type": "number"}
    if schema is not None and schema.task == "multiclass":
        names = [str(name) for name in schema.classes]
        number = {
            "type": "object",
            "required": names,
            "properties": {name: {"type": "number"} for name in names},
        }
    elif schema is not None and schema.task == "binary":
        number = {"type": "number", "minimum": 0, "maximum": 1, "description": f"of {schema.classes[1]!r}"}
    document = get_openapi(title=app.title, version=str(generation), routes=app.routes)
    document.setdefault("components", {})["schemas"] = {
        "Row": row,
        "Columns": {"type": "object", "required": list(columns), "properties": columns},
        "Answers": {
            "type": "object",
            "required": ["generation", "answers"],
            "properties": {
                "generation": {"type": "integer"},
                "answers": {"type": "array", "items": _refers("Answer")},
            },
        },
        "Answer": {
            "type": "object",
            "required": ["prediction", "model_version", "source", "degraded", "reason"],
            "properties": {
                "prediction": number,
                "model_version": {"type": "integer"},
                "source": {"enum": ["champion", "predecessor", "rule"]},
                "degraded": {"type": "boolean"},
                "reason": {"type": "string"},
            },
        },
        "Problem": _PROBLEM,
    }
    return document


def row_schema(schema: Schema) -> dict[str, Any]:
    """The JSON schema of one row: names, types and, of categories, the levels that the model knows."""
    properties = {}
    for column in schema.features:
        match column.kind:
            case "numeric":
                known: dict[str, Any] = {"type": ["number", "null"]}
            case "boolean":
                known = {"type": ["boolean", "null"]}
            case "datetime":
                known = {"type": ["string", "null"], "format": "date-time"}
            case _:
                levels = list(column.levels or ())
                known = {"type": ["string", "null"], "examples": levels[:20]}
                known["description"] = f"The model knows {len(levels)} levels; another is taken for unknown."
        properties[column.name] = known
    return {"type": "object", "required": list(properties), "properties": properties}
