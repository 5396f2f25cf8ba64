"""Bodies of requests: what is asked is read, what is wrong is said, and nothing else comes out."""

from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prodkit.data.schema import Column, Schema
from prodkit.errors import RequestError
from prodkit.scoring.guard import Answers
from prodkit.serving.bodies import ARROW, JSON, answer_body, media_type, read_body, row_schema

BINARY = Schema((Column("price", "numeric"),), "returned", "binary", (0, 1))
SEVERAL = Schema((Column("price", "numeric"),), "what", "multiclass", ("a", "b", "c"))


def stream(table, **options):
    """A table as an Arrow stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


TABLE = pa.table({"price": [1.0, None, 3.0], "city": ["Oslo", None, "Rome"]})
STREAM = stream(TABLE)


KNOWN = {"price", "city", "when", "level"}


def asked(body, content_type=JSON, most_rows=100, **headers):
    """What a body holds."""
    kind = media_type({"content-type": content_type, **headers})
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_body(body, kind, known=KNOWN, most_rows=most_rows)


def test_records_and_columns_say_the_same():
    """A list of objects and an object of lists are two ways to send the same rows."""
    rows = [{"price": 1.5, "city": "Oslo"}, {"price": None, "city": "Rome"}]
    assert asked({"records": rows}) == rows
    assert (
        asked({"columns": {"price": [1.5, None], "city": ["Oslo", "Rome"]}}, f"{JSON}; charset=utf-8") == rows
    )
    assert asked({"records": []}) == asked({"columns": {}}) == []


def test_an_arrow_stream_is_a_table():
    """Numbers, texts, booleans, times and dictionaries arrive with their types."""
    table = TABLE.append_column("when", pa.array([0, 1, None], pa.timestamp("us"))).append_column(
        "level", pa.array(["x", "y", None]).dictionary_encode()
    )
    frame = asked(stream(table), ARROW)
    assert frame["price"].tolist()[::2] == [1.0, 3.0]
    assert frame["level"].isna().tolist() == [False, False, True]
    assert len(asked(stream(table.slice(0, 0)), ARROW)) == 0


@pytest.mark.parametrize(
    ("body", "kind", "status", "rule"),
    [
        (b"", JSON, 400, "must be JSON"),
        (b"{", JSON, 400, "must be JSON"),
        (b'{"records": [{"price": NaN}]}', JSON, 400, "must be JSON"),
        (b"\xff\xfe", JSON, 400, "must be JSON"),
        ('{"records": []}'.encode("utf-16"), JSON, 400, "must be JSON in UTF-8"),
        (b"{}", f"{JSON}; charset=utf-16", 415, "must be UTF-8"),
        (stream(pa.table({"other": [1.0]})), ARROW, 422, "must hold columns of the model"),
        (b"[" * 100_000, JSON, 400, "must be JSON"),
        (b'{"records": [' + b"9" * 10_000 + b"]}", JSON, 400, "must be JSON"),
        ([1, 2], JSON, 422, 'must be an object with one of "records"'),
        ({}, JSON, 422, 'must be an object with one of "records"'),
        ({"records": [], "columns": {}}, JSON, 422, 'must be an object with one of "records"'),
        ({"records": {"price": 1}}, JSON, 422, "must be a list of objects"),
        ({"columns": [1]}, JSON, 422, "must be an object of lists"),
        ({"columns": {"price": 1}}, JSON, 422, "must be an object of lists"),
        ({"columns": {"price": [1], "city": []}}, JSON, 422, "must be lists of one length"),
        ({"records": [{}] * 101}, JSON, 413, "must hold at most 100 rows"),
        ({"records": []}, "text/csv", 415, "must be application/json or"),
        (b"", ARROW, 400, "must be an Arrow stream"),
        (b"\xff\xff\xff\xff", ARROW, 400, "must be an Arrow stream"),
        (STREAM[: len(STREAM) // 2], ARROW, 400, "must be an Arrow stream"),
        (stream(TABLE, compression="zstd"), ARROW, 422, "must not be compressed inside"),
        (stream(pa.table({"price": [[1.0]]})), ARROW, 422, "must be a plain column"),
        (stream(pa.table({"price": [1.0] * 101})), ARROW, 413, "must hold at most 100 rows"),
        (stream(pa.table({"price": pa.nulls(10**9)})), ARROW, 413, "must hold at most 100 rows"),
    ],
)
def test_what_cannot_be_read_says_the_rule(body, kind, status, rule):
    """Each kind of wrong body has its status and its rule."""
    with pytest.raises(RequestError, match=rule.replace("(", r"\(")) as caught:
        asked(body, kind)
    assert caught.value.status == status
    assert pickle.loads(pickle.dumps(caught.value)).status == status


def test_a_packed_body_is_refused_by_name():
    """Bodies come as they are: gzip could hold any number of rows."""
    with pytest.raises(RequestError, match="content-encoding must be identity; found gzip") as caught:
        asked(b"", **{"content-encoding": "gzip"})
    assert caught.value.status == 415


def test_columns_that_nobody_reads_are_dropped_before_rows_are_made():
    """Ten thousand foreign columns cost their names only, in JSON as in Arrow."""
    wide = {f"c{number}": [1.0] for number in range(10_000)} | {"price": [2.0]}
    assert asked({"columns": wide}) == [{"price": 2.0}]
    assert asked(stream(pa.table(wide)), ARROW).to_dict("records") == [{"price": 2.0}]


def status_or_rows(body, kind):
    """200 for up to a hundred rows, or the status of the error."""
    try:
        return 200 if len(asked(body, kind)) <= 100 else 500
    except RequestError as error:
        return error.status


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_rows_or_an_error_with_a_status(body):
    """Nothing but rows or a RequestError comes out, whatever comes in."""
    assert {status_or_rows(body, JSON), status_or_rows(body, ARROW)} <= {200, 400, 413, 422}


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(STREAM) - 1), st.integers(0, 255))
def test_a_stream_with_one_byte_changed_is_rows_or_an_error(place, byte):
    """Damage in an Arrow stream neither crashes the process nor gives more rows than are allowed."""
    body = bytearray(STREAM)
    body[place] = byte
    assert status_or_rows(bytes(body), ARROW) in (200, 400, 413, 422)


def answers(predicted):
    """Two answers, the second degraded."""
    return Answers(
        predicted=np.array(predicted),
        degraded=np.array([False, True]),
        reason=np.array(["", "why"], dtype=object),
        version=np.array([3, 2]),
        source=np.array(["champion", "predecessor"], dtype=object),
    )


def test_answers_are_written_as_json_and_as_arrow():
    """Both forms hold number, version, source, degradation and reason of each row."""
    document = json.loads(answer_body(answers([0.25, 0.5]), BINARY, generation=7, kind=JSON))
    assert document["generation"] == 7
    assert document["answers"][1] == {
        "prediction": 0.5,
        "model_version": 2,
        "source": "predecessor",
        "degraded": True,
        "reason": "why",
    }
    table = pa.ipc.open_stream(answer_body(answers([0.25, 0.5]), BINARY, generation=7, kind=ARROW)).read_all()
    assert table.to_pylist()[1] == document["answers"][1] | {"generation": 7}


def test_a_reason_with_half_a_character_is_written_all_the_same():
    """What a model says when it fails may be no text; the answer is still one."""
    odd = answers([0.25, 0.5])
    odd.reason[1] = "half \ud800"
    assert (
        json.loads(answer_body(odd, BINARY, generation=1, kind=JSON))["answers"][1]["reason"] == "half \ud800"
    )
    table = pa.ipc.open_stream(answer_body(odd, BINARY, generation=1, kind=ARROW)).read_all()
    assert table["reason"].to_pylist() == ["", "half ?"]


def test_several_classes_have_a_share_each():
    """By name in JSON, a column each in Arrow."""
    shares = [[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]
    document = json.loads(answer_body(answers(shares), SEVERAL, generation=1, kind=JSON))
    assert document["answers"][0]["prediction"] == {"a": 0.2, "b": 0.3, "c": 0.5}
    table = pa.ipc.open_stream(answer_body(answers(shares), SEVERAL, generation=1, kind=ARROW)).read_all()
    assert table["prediction_c"].to_pylist() == [0.5, 0.8]


def test_the_schema_of_a_row_names_every_feature_and_its_type():
    """Every kind has its JSON type, may be null, and must be there."""
    kinds = {"a": "numeric", "b": "boolean", "c": "categorical", "d": "datetime"}
    columns = tuple(
        Column(name, kind, levels=("x",) if name == "c" else None) for name, kind in kinds.items()
    )
    described = row_schema(Schema(columns, "y", "binary", (0, 1)))
    assert described["required"] == list(kinds)
    types = [described["properties"][name]["type"][0] for name in kinds]
    assert types == ["number", "boolean", "string", "string"]
    assert pd.notna(described["properties"]["c"]["examples"][0])
