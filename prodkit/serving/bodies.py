"""Bodies of requests as rows, answers as bodies, and the OpenAPI words for both."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic_core import from_json

from prodkit.data.schema import Schema
from prodkit.errors import RequestError
from prodkit.scoring.guard import Answers

__all__ = ["ARROW", "JSON", "PREDICT", "answer_body", "describe", "media_type", "read_body", "row_schema"]

JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
_SHAPE = 'must be an object with one of "records" (a list of objects) and "columns" (an object of lists)'
_UTF8 = ("", "utf-8", "utf8", "us-ascii")


def media_type(headers: Mapping[str, str]) -> str:
    """JSON or Arrow, as the head of a request says; RequestError 415 for anything else, or for packed bodies."""
    kind, _, rest = headers.get("content-type", JSON).partition(";")
    kind = kind.strip().lower() or JSON
    if kind not in (JSON, ARROW):
        raise RequestError.of(415, "content-type", rule=f"must be {JSON} or {ARROW}", value=kind[:80])
    charset = rest.lower().partition("charset=")[2].strip(' "')
    if charset not in _UTF8:
        raise RequestError.of(
            415, "content-type", rule="must be UTF-8", value=charset[:80], fix="Send UTF-8."
        )
    packed = headers.get("content-encoding", "identity").strip().lower()
    if packed not in ("", "identity"):
        fix = "Send the body as it is."
        raise RequestError.of(415, "content-encoding", rule="must be identity", value=packed[:80], fix=fix)
    return kind


def read_body(body: bytes, kind: str, *, known: Collection[str], most_rows: int) -> list[Any] | pd.DataFrame:
    """The rows of a request: a list with anything in it, or a table. Rows are counted before any is made.

    Args:
        body: all of it.
        kind: JSON or Arrow.
        known: names of columns that somebody reads; of a column-wise body the others are dropped first.
        most_rows: more are refused.

    Raises:
        RequestError: 400 it is not what it says; 413 too many rows; 422 another shape.
    """
    if kind == ARROW:
        return _arrow(body, known, most_rows)
    if body[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in body[:4]:
        raise RequestError.of(400, "body", rule="must be JSON in UTF-8", value="UTF-16 or UTF-32")
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RequestError.of(400, "body", rule=f"must be JSON: {str(error)[:200]}") from error
    if not isinstance(document, dict) or ("records" in document) == ("columns" in document):
        value = sorted(map(str, document))[:5] if isinstance(document, dict) else type(document).__name__
        raise RequestError.of(422, "body", rule=_SHAPE, value=value)
    if "records" in document:
        rows = document["records"]
        if not isinstance(rows, list):
            raise RequestError.of(422, "records", rule="must be a list of objects", value=type(rows).__name__)
        _count(len(rows), most_rows)
        return rows
    columns = document["columns"]
    if not isinstance(columns, dict) or not all(isinstance(cells, list) for cells in columns.values()):
        raise RequestError.of(422, "columns", rule="must be an object of lists", value=type(columns).__name__)
    lengths = {len(cells) for cells in columns.values()}
    if len(lengths) > 1:
        raise RequestError.of(422, "columns", rule="must be lists of one length", value=sorted(lengths)[:5])
    _count(max(lengths, default=0), most_rows)
    read = {name: cells for name, cells in columns.items() if name in known}
    if not read:
        return [{} for _ in range(max(lengths, default=0))]
    return [dict(zip(read, cells, strict=True)) for cells in zip(*read.values(), strict=True)]


def _count(rows: int, most_rows: int) -> None:
    if rows > most_rows or rows < 0:
        fix = "Send them in parts, or score a file: prodkit run score."
        raise RequestError.of(413, "body", rule=f"must hold at most {most_rows} rows", value=rows, fix=fix)


def _arrow(body: bytes, known: Collection[str], most_rows: int) -> pd.DataFrame:
    try:
        _require_plain(body, most_rows)
        names = pa.ipc.open_stream(body).schema.names
        places = [place for place, name in enumerate(names) if name in known]
        if not places:
            raise RequestError.of(422, "body", rule="must hold columns of the model", value=names[:5])
        with pa.ipc.open_stream(body, options=pa.ipc.IpcReadOptions(included_fields=places)) as stream:
            for field in stream.schema:
                if not _is_plain(field.type):
                    fix = "Send numbers, booleans, texts and times."
                    raise RequestError.of(
                        422, field.name, rule="must be a plain column", value=field.type, fix=fix
                    )
            table = stream.read_all()
        table.validate(full=True)
        frame: pd.DataFrame = table.to_pandas()
    except RequestError:
        raise
    except Exception as error:  # whatever Arrow makes of a hostile body
        words = f"{type(error).__name__}: {error}"[:200]
        raise RequestError.of(400, "body", rule=f"must be an Arrow stream: {words}") from error
    return frame


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        return bool(types.is_string(kind.value_type) or types.is_large_string(kind.value_type))
    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string)
    return any(
        test(kind) for test in (*tests, types.is_timestamp, types.is_date, types.is_null, types.is_decimal)
    )


def _require_plain(body: bytes, most_rows: int) -> None:
    """Refuse rows beyond number and compressed buffers: Arrow unpacks a buffer whole, so a few bytes could fill memory.

    Only the messages' own headers say so (format/Message.fbs), and pyarrow does not tell what stands there.
    """
    rows, reader = 0, pa.ipc.MessageReader.open_stream(body)
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if message.type == "schema":
            continue
        data = bytes(message.metadata)
        batch = _table(data, struct.unpack_from("<I", data)[0], 2)
        if message.type != "record batch":
            batch = _table(data, batch, 1)
        place = _field(data, batch, 0)
        rows += struct.unpack_from("<q", data, place)[0] if place else 0
        _count(rows, most_rows)
        if _field(data, batch, 3):
            fix = "Write the stream without compression."
            raise RequestError.of(
                422, "body", rule="must not be compressed inside", value=message.type, fix=fix
            )


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table is; 0 if it is not there."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", data, fields)[0]:
        return 0
    offset: int = struct.unpack_from("<H", data, fields + 4 + 2 * number)[0]
    return table + offset if offset else 0


def _table(data: bytes, table: int, number: int) -> int:
    place = _field(data, table, number)
    return int(place + struct.unpack_from("<I", data, place)[0])


def answer_body(answers: Answers, schema: Schema, *, generation: int, kind: str) -> bytes:
    """The body that answers n rows, in their order: JSON, or an Arrow stream with one row each."""
    if kind == ARROW:
        return _arrow_answers(answers, schema, generation)
    classes = [str(name) for name in schema.classes]
    predicted = answers.predicted.tolist()
    if answers.predicted.ndim > 1:
        predicted = [dict(zip(classes, shares, strict=True)) for shares in predicted]
    names = ("prediction", "model_version", "source", "degraded", "reason")
    parts = (answers.version, answers.source, answers.degraded, answers.reason)
    table = zip(predicted, *(part.tolist() for part in parts), strict=True)
    return json.dumps(
        {"generation": generation, "answers": [dict(zip(names, row, strict=True)) for row in table]}
    ).encode()


def _arrow_answers(answers: Answers, schema: Schema, generation: int) -> bytes:
    columns: dict[str, Any] = {"prediction": answers.predicted}
    if answers.predicted.ndim > 1:
        columns = {f"prediction_{name}": answers.predicted[:, k] for k, name in enumerate(schema.classes)}
    columns |= {
        "model_version": answers.version,
        "source": pa.array(answers.source, pa.string()),
        "degraded": answers.degraded,
        "reason": pa.array([reason.encode("utf-8", "replace") for reason in answers.reason], pa.string()),
        "generation": np.full(len(answers.degraded), generation),
    }
    table, sink = pa.table(columns), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


# The description


def _refers(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(
    properties: Mapping[str, Any], required: Sequence[str] | None = None, **more: Any
) -> dict[str, Any]:
    needed = list(properties) if required is None else list(required)
    return {"type": "object", "required": needed, "properties": dict(properties)} | more


_REFUSED = {
    "400": "The body is not what it says.",
    "401": "The token is missing or wrong.",
    "408": "The body took too long.",
    "413": "The body is too large, or holds too many rows.",
    "415": "The format is not known, or the body is packed.",
    "422": "The body has another shape.",
    "503": "No version is loaded, or too much is waiting; try again.",
}
_BODY = {
    "oneOf": [
        _object({"records": {"type": "array", "items": _refers("Row")}}, additionalProperties=False),
        _object({"columns": _refers("Columns")}, additionalProperties=False),
    ]
}
PREDICT: dict[str, Any] = {
    "requestBody": {"required": True, "content": {JSON: {"schema": _BODY}, ARROW: {"schema": {}}}},
    "responses": {
        "200": {
            "description": "One answer a row, in their order.",
            "content": {JSON: {"schema": _refers("Answers")}, ARROW: {"schema": {}}},
        },
        **{
            status: {"description": text, "content": {JSON: {"schema": _refers("Problem")}}}
            for status, text in _REFUSED.items()
        },
    },
}


def describe(app: FastAPI, schema: Schema | None, *, generation: int) -> dict[str, Any]:
    """The OpenAPI document, with the columns of the version that answers; without one, rows are any objects."""
    row: dict[str, Any] = row_schema(schema) if schema else {"type": "object"}
    columns = {name: {"type": "array", "items": kind} for name, kind in row.get("properties", {}).items()}
    number: dict[str, Any] = {"type": "number"}
    if schema is not None and schema.task == "multiclass":
        number = _object({str(name): {"type": "number"} for name in schema.classes})
    elif schema is not None and schema.task == "binary":
        number = {"type": "number", "minimum": 0, "maximum": 1, "description": f"of {schema.classes[1]!r}"}
    texts = {name: {"type": "string"} for name in ("name", "rule", "fix", "message")}
    answer = {
        "prediction": number,
        "model_version": {"type": "integer"},
        "source": {"enum": ["champion", "predecessor", "rule"]},
        "degraded": {"type": "boolean"},
        "reason": {"type": "string"},
    }
    document = get_openapi(title=app.title, version=str(generation), routes=app.routes)
    document.setdefault("components", {})["schemas"] = {
        "Row": row,
        "Columns": _object(columns),
        "Answer": _object(answer),
        "Answers": _object(
            {"generation": {"type": "integer"}, "answers": {"type": "array", "items": _refers("Answer")}}
        ),
        "Problem": _object({"error": _object({"found": {"type": ["string", "null"]}, **texts})}),
    }
    return document


def row_schema(schema: Schema) -> dict[str, Any]:
    """The JSON schema of one row: names, types and, of categories, the levels that the model knows."""
    types: dict[str, dict[str, Any]] = {
        "numeric": {"type": ["number", "null"]},
        "boolean": {"type": ["boolean", "null"]},
        "datetime": {"type": ["string", "null"], "format": "date-time"},
    }
    properties = {}
    for column in schema.features:
        levels = list(column.levels or ())
        words = f"The model knows {len(levels)} levels; another is taken for unknown."
        category = {"type": ["string", "null"], "examples": levels[:20], "description": words}
        properties[column.name] = types.get(column.kind, category)
    return _object(properties)
