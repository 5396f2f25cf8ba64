"""Bodies of requests as rows, and answers as bodies: JSON records, JSON columns and Arrow streams."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic_core import from_json

from prodkit.data.schema import Schema
from prodkit.errors import RequestError
from prodkit.scoring.guard import Answer, Answers
from prodkit.serving.interface import ARROW, JSON

__all__ = ["answer_bytes", "answers_bytes", "answers_stream", "read_body"]

_SHAPE = 'must be an object with one of "records" (a list of objects) and "columns" (an object of lists)'


def read_body(body: bytes, content_type: str, *, most_rows: int) -> list[Any] | pd.DataFrame:
    """The rows of a request: a list with anything in it, or a table.

    Args:
        body: all of it.
        content_type: ``application/json`` or ``application/vnd.apache.arrow.stream``.
        most_rows: more are refused.

    Raises:
        RequestError: 400 it is not what it says; 413 too many rows; 415 another format; 422 another shape.
    """
    kind = content_type.partition(";")[0].strip().lower() or JSON
    if kind == ARROW:
        return _arrow(body, most_rows)
    if kind != JSON:
        raise RequestError.of(415, "content-type", rule=f"must be {JSON} or {ARROW}", value=kind[:80])
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RequestError.of(400, "body", rule=f"must be JSON: {str(error)[:200]}") from error
    rows = _rows(document)
    if len(rows) > most_rows:
        raise _too_many(len(rows), most_rows)
    return rows


def _too_many(rows: int, most_rows: int) -> RequestError:
    fix = "Send them in parts, or score a file: prodkit run score."
    return RequestError.of(413, "body", rule=f"must hold at most {most_rows} rows", value=rows, fix=fix)


def _rows(document: Any) -> list[Any]:
    if not isinstance(document, dict) or ("records" in document) == ("columns" in document):
        found = sorted(map(str, document))[:5] if isinstance(document, dict) else type(document).__name__
        raise RequestError.of(422, "body", rule=_SHAPE, value=found)
    if "records" in document:
        records = document["records"]
        if not isinstance(records, list):
            raise RequestError.of(
                422, "records", rule="must be a list of objects", value=type(records).__name__
            )
        return records
    columns = document["columns"]
    if not isinstance(columns, dict) or not all(isinstance(cells, list) for cells in columns.values()):
        raise RequestError.of(422, "columns", rule="must be an object of lists", value=type(columns).__name__)
    lengths = {name: len(cells) for name, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        raise RequestError.of(422, "columns", rule="must be lists of one length", value=str(lengths)[:200])
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _arrow(body: bytes, most_rows: int) -> pd.DataFrame:
    try:
        _require_plain(body, most_rows)
        with pa.ipc.open_stream(body) as stream:
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
    of_kind = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string)
    return any(
        test(kind) for test in (*of_kind, types.is_timestamp, types.is_date, types.is_null, types.is_decimal)
    )


def _require_plain(body: bytes, most_rows: int) -> None:
    """Refuse what would grow without bounds when it is read: compressed buffers, and rows beyond number.

    Arrow unpacks a buffer as a whole, so a small body could take all memory. The messages' own headers say what is
    to come (format/Message.fbs).
    """
    rows = 0
    reader = pa.ipc.MessageReader.open_stream(body)
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if message.type == "schema":
            continue
        header = _Flat(bytes(message.metadata)).table(2)
        batch = header if message.type == "record batch" else header.table(1)
        rows += batch.integer(0)
        if rows > most_rows or rows < 0:
            raise _too_many(rows, most_rows)
        if batch.place(3):
            fix = "Write the stream without compression."
            raise RequestError.of(
                422, "body", rule="must not be compressed inside", value=message.type, fix=fix
            )


class _Flat:
    """A table of a flatbuffer; its fields by number."""

    def __init__(self, data: bytes, at: int | None = None) -> None:
        self._data = data
        self._at = struct.unpack_from("<I", data)[0] if at is None else at
        self._fields = self._at - struct.unpack_from("<i", data, self._at)[0]

    def place(self, field: int) -> int:
        """Where a field is; 0 if it is not there."""
        if 4 + 2 * field >= struct.unpack_from("<H", self._data, self._fields)[0]:
            return 0
        offset: int = struct.unpack_from("<H", self._data, self._fields + 4 + 2 * field)[0]
        return self._at + offset if offset else 0

    def table(self, field: int) -> _Flat:
        place = self.place(field)
        return _Flat(self._data, place + struct.unpack_from("<I", self._data, place)[0])

    def integer(self, field: int) -> int:
        place = self.place(field)
        return int(struct.unpack_from("<q", self._data, place)[0]) if place else 0


def _prediction(predicted: Any, classes: Sequence[Any]) -> Any:
    if isinstance(predicted, float):
        return predicted
    return {str(name): float(share) for name, share in zip(classes, predicted, strict=True)}


def answer_bytes(answer: Answer, schema: Schema, *, generation: int) -> bytes:
    """The JSON body that answers a single row."""
    found = {
        "prediction": _prediction(answer.predicted, schema.classes),
        "model_version": answer.version,
        "source": answer.source,
        "degraded": answer.degraded,
        "reason": answer.reason,
    }
    return json.dumps({"generation": generation, "answers": [found]}).encode()


def answers_bytes(answers: Answers, schema: Schema, *, generation: int) -> bytes:
    """The JSON body that answers n rows, in their order."""
    table = zip(
        answers.predicted.tolist(),
        answers.version.tolist(),
        answers.source.tolist(),
        answers.degraded.tolist(),
        answers.reason.tolist(),
        strict=True,
    )
    found = [
        {
            "prediction": _prediction(predicted, schema.classes),
            "model_version": version,
            "source": source,
            "degraded": degraded,
            "reason": reason,
        }
        for predicted, version, source, degraded, reason in table
    ]
    return json.dumps({"generation": generation, "answers": found}).encode()


def answers_stream(answers: Answers, schema: Schema, *, generation: int) -> bytes:
    """The same as an Arrow stream with one row each."""
    columns: dict[str, Any] = {}
    if schema.task == "multiclass":
        columns |= {
            f"prediction_{name}": answers.predicted[:, code] for code, name in enumerate(schema.classes)
        }
    else:
        columns["prediction"] = answers.predicted
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
