"""Outputs are alike if they say the same: what a reader would take for another number is never passed over."""

from __future__ import annotations

import base64
import io
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from prodkit.runs.comparison import Comparison, Span

RECORDED = Span(
    datetime(2024, 5, 1, 12, tzinfo=UTC), datetime(2024, 5, 1, 12, 1, tzinfo=UTC), cell_seconds=2.0
)
FOUND = Span(datetime(2025, 6, 2, 8, tzinfo=UTC), datetime(2025, 6, 2, 8, 1, tzinfo=UTC), cell_seconds=3.0)
COMPARISON = Comparison(recorded=RECORDED, found=FOUND)


def alike(recorded: str, found: str, *, by: Comparison = COMPARISON) -> bool:
    """Whether two texts are."""
    return by.texts(recorded, found) == []


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        ("share  0.123456789", "share 0.123456788"),
        ("<td>1.0</td>", "<td>1</td>"),
        ("3.0e-05 of 1,234.50", "3.00000001e-05 of 1,234.5"),
        ("took 0.123456789 s", "took 0.123456788 s"),
        ("<A object at 0x7f3a12>", "<A object at 0x7fffff>"),
        ("/tmp/ipykernel_123/99.py:3: UserWarning", "/tmp/ipykernel_77/99.py:3: UserWarning"),
        ('<table id="T_a1b2c"> #T_a1b2c_row0_col1', '<table id="T_fffff"> #T_fffff_row0_col1'),
        ("at 2024-05-01T12:00:30.5+00:00", "at 2025-06-02T08:00:59+00:00"),
        ("2024-05-01 12:00:30,123 INFO begun", "2025-06-02 08:00:01,999 INFO begun"),
        ("Wed May  1 12:00:03 2024", "Mon Jun  2 08:00:04 2025"),
        ("it is 12:00:03", "it is 08:00:59"),
        ("on 2024-05-01", "on 2025-06-02"),
        ("1714564830.25", "1748851230.75"),
        ("took 1.9 s", "took 2800 ms"),
        ("CPU times: user 3 ms\nWall time: 1 s", "CPU times: user 9 ms\nWall time: 7 s"),
        (
            "1.2 ms ± 3 μs per loop (mean ± std. dev. of 7 runs, 9 loops each)",
            "1 s ± 3 s per loop (mean ± std. dev. of 7 runs, 1 loop each)",
        ),
        ("a: 100%|##| 3/3 [00:01<00:00, 2.1it/s]", "a: 100%|##| 3/3 [00:09<00:00, 3.0s/it]"),
        ("7it [00:01, 6.9it/s]", "3it [00:00, 9it/s]\r7it [00:02, 2it/s]"),
    ],
)
def test_what_cannot_repeat_is_alike(recorded: str, found: str) -> None:
    """The last digits of floats, addresses, the run's own clock, timings and progress bars do not count."""
    assert alike(recorded, found)
    assert alike(recorded, recorded, by=Comparison())


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        ("0.6562", "0.6563"),
        ("12345678 rows", "12345679 rows"),
        ("1,234,567.8", "1,234,568.8"),
        ("+0.5", "-0.5"),
        ("007", "7"),
        ("1e999", "1e998"),
        ("v1.2.3", "v1.2.4"),
        ("digest a1e5b", "digest a1e6b"),
        ("0x1f", "0x2f"),
        ("2013-04-01 10:00:00", "2013-04-01 10:00:01"),
        ("2024-05-01T12:05:00", "2025-06-02T08:00:01"),
        ("2024-05-01T12:00:30", "2013-06-02T08:00:01"),
        ("2024-05-02", "2025-06-02"),
        ("delay of 12.5 s", "delay of 13.5 s"),
        ("latency 3.1 ms", "latency 4.1 ms"),
        ("took 1.9 s", "took 9 s"),
        ("a: 100%|##| 3/3 [00:01<00:00, 2.1it/s]", "a: 67%|# | 2/3 [00:01<00:00, 2.1it/s]"),
        ("100%|##| 3/3 [00:01<00:00, 2.1it/s, loss=0.31]", "100%|##| 3/3 [00:01<00:00, 2.1it/s, loss=0.32]"),
        ("100%|##| 3/3 [00:01<00:00, 2.1it/s] 17", "100%|##| 3/3 [00:01<00:00, 2.1it/s] 18"),
        ("a\nb", "a"),
        ("a", "a\nb"),
        ("a 1", "a"),
        ("| a | 1 |", "| a | 2 |"),
        ("True", "False"),
        ("nan", "0.5"),
    ],
)
def test_what_says_something_else_is_not_alike(recorded: str, found: str) -> None:
    """Whole numbers, shown digits, moments and durations of the data, counts of bars and lines are compared."""
    (difference,) = COMPARISON.texts(recorded, found)
    assert difference.recorded != difference.found
    assert not alike(found, recorded)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_alike_within_the_tolerance_and_not_beyond(one: float, other: float) -> None:
    """Written out or as JSON, two floats are alike exactly if they are close."""
    close = math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    assert alike(f"a {one!r} b", f"a {other!r} b", by=Comparison()) == close
    assert (Comparison().values(one, other) == []) == close


@given(st.integers(), st.integers())
def test_whole_numbers_are_alike_only_if_equal(one: int, other: int) -> None:
    """No tolerance hides a digit of a whole number."""
    assert alike(f"n {one} rows", f"n {other} rows", by=Comparison()) == (one == other)
    assert (Comparison().values(one, other) == []) == (one == other)


@given(st.text(max_size=60), st.integers(0, 59), st.sampled_from("0123456789"))
def test_a_changed_digit_is_always_found(text: str, place: int, digit: str) -> None:
    """Whatever text surrounds it, a digit of a whole number cannot be changed unseen."""
    text = f"{text[:place]} 1234 {text[place:]}"
    assume(digit != "3")
    changed = text.replace(" 1234 ", f" 12{digit}4 ", 1)
    assume("|" not in text and "0x" not in text)
    assert not alike(text, changed, by=Comparison())
    assert alike(text, text, by=Comparison())


def test_documents_are_compared_place_by_place() -> None:
    """Each difference is named by its path, an item of a list by its name; places may be left out."""
    then = {"a": [{"name": "x", "value": 1.0}, 2], "b": {"c": None}, "d": True, "e": "0.1"}
    now = {"a": [{"name": "x", "value": 1.5}, 2, 3], "b": {"c": 0}, "d": 1, "e": "0.2"}
    found = Comparison().values(then, now)
    assert [(each.what, each.recorded, each.found) for each in found] == [
        *((".a[x].value", "1.0", "1.5"), (".a[2]", "nothing", "3"), (".b.c", "null", "0")),
        *((".d", "true", "1"), (".e", "0.1", "0.2")),
    ]
    left = Comparison().values(then, now, skipped=[".a[x].value", ".b", ".d"])
    assert [each.what for each in left] == [".a[2]", ".e"]
    assert Comparison().values({"a": float("nan")}, {"a": float("nan")}) == []


# Figures


def png(image: Image.Image, **settings: Any) -> str:
    """A picture as a notebook keeps it."""
    buffer = io.BytesIO()
    image.save(buffer, format=settings.pop("format", "png"), **settings)
    return base64.b64encode(buffer.getvalue()).decode()


def pixels(seed: int = 0) -> Image.Image:
    """Some picture."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 9, 3)).astype("uint8"))


def display(**data: Any) -> list[dict[str, Any]]:
    """One output with data of these kinds, written with two underscores for the slash."""
    return [
        {
            "output_type": "display_data",
            "data": {kind.replace("__", "/"): value for kind, value in data.items()},
            "metadata": {},
        }
    ]


def test_a_figure_is_what_it_draws() -> None:
    """Compression, metadata and line breaks do not matter; one changed pixel does."""
    from PIL.PngImagePlugin import PngInfo

    about = PngInfo()
    about.add_text("Software", "another version")
    plain, other = png(pixels()), png(pixels(), compress_level=0, pnginfo=about)
    assert plain != other
    wrapped = "\n".join([other[:40], other[40:], ""])
    assert Comparison().outputs(display(image__png=plain), display(image__png=wrapped)) == []
    changed = pixels()
    changed.putpixel((3, 3), (1, 2, 3))
    (difference,) = Comparison().outputs(display(image__png=plain), display(image__png=png(changed)))
    assert difference.what == "image/png"
    assert difference.recorded.startswith("drawn 9x8, ")


@pytest.mark.parametrize("spoilt", ["", "!", "bm90IGEgcGljdHVyZQ==", png(pixels())[:80], None, 5])
def test_what_is_no_picture_is_never_alike(spoilt: Any) -> None:
    """Garbage, a truncated file or nothing is a difference, even if both have it."""
    for found in (png(pixels()), spoilt):
        (difference,) = Comparison().outputs(display(image__png=spoilt), display(image__png=found))
        assert difference.recorded.startswith("no picture: ")


def test_a_missing_or_added_output_is_found() -> None:
    """The number of outputs of each kind is compared; what is alike is matched in order."""
    one, two = display(text__plain="1"), display(text__plain="2")
    assert Comparison().outputs(one + two, one + two) == []
    (missing, about) = Comparison().outputs(one + two, one)
    assert (missing.what, missing.recorded, missing.found) == ("text/plain", "2: 1", "1: 1")
    assert about.what == "metadata"
    assert [each.what for each in Comparison().outputs(one + two, two + one)] == ["text/plain", "text/plain"]


def test_what_is_said_about_a_figure_is_compared() -> None:
    """The text for those who cannot see a figure holds numbers, too."""
    one, other = display(image__png=png(pixels())), display(image__png=png(pixels()))
    one[0]["metadata"] = {"image/png": {"alt": "AUC 0.71"}}
    other[0]["metadata"] = {"image/png": {"alt": "AUC 0.72"}}
    (difference,) = Comparison().outputs(one, other)
    assert (difference.what, difference.recorded, difference.found) == (
        "metadata.image/png.alt",
        "AUC 0.71",
        "AUC 0.72",
    )


def test_a_drawing_is_compared_without_its_random_ids() -> None:
    """Matplotlib names the parts of an SVG at random and dates it; the lines count."""

    def drawing(values: list[float]) -> str:
        figure, buffer = Figure(figsize=(2, 2)), io.StringIO()
        figure.subplots().plot(values)
        figure.savefig(buffer, format="svg")
        return buffer.getvalue()

    one, again, other = drawing([1, 2, 3]), drawing([1, 2, 3]), drawing([1, 2.5, 3])
    assert one != again
    assert (
        Comparison().outputs(display(**{"image__svg+xml": one}), display(**{"image__svg+xml": again})) == []
    )
    assert (
        Comparison().outputs(display(**{"image__svg+xml": one}), display(**{"image__svg+xml": other})) != []
    )


def test_structured_outputs_are_compared_as_numbers() -> None:
    """JSON of any MIME type has the same tolerance as text; of a live widget only the presence counts."""
    kind = "application/vnd.chart+json"
    one = display(**{kind.replace("/", "__"): {"y": [1.0, 2.0]}})
    close = display(**{kind.replace("/", "__"): {"y": [1.0, 2.000000001]}})
    other = display(**{kind.replace("/", "__"): {"y": [1.0, 2.1]}})
    assert Comparison().outputs(one, close) == []
    assert [each.what for each in Comparison().outputs(one, other)] == [f"{kind}.y[1]"]
    widget = "application__vnd.jupyter.widget-view+json"
    assert (
        Comparison().outputs(display(**{widget: {"model_id": "a"}}), display(**{widget: {"model_id": "b"}}))
        == []
    )
    assert Comparison().outputs(display(**{widget: {"model_id": "a"}}), []) != []


# The clock


@given(st.floats(-3600, 7200), st.sampled_from(["iso", "seconds", "zone", "clock"]))
def test_a_moment_is_the_clocks_only_within_the_run(offset: float, form: str) -> None:
    """A moment more than two seconds outside of the run is never taken for its clock, one inside always."""
    moment = RECORDED.start + timedelta(seconds=offset)
    zone = moment.astimezone()
    text = {
        "iso": f"{moment:%Y-%m-%d %H:%M:%S.%f}",
        "seconds": repr(moment.timestamp()),
        "zone": zone.isoformat(),
        "clock": f"{zone:%H:%M:%S}",
    }[form]
    now = {"seconds": repr(FOUND.start.timestamp()), "clock": "08:00:30"}.get(form, "2025-06-02T08:00:30Z")
    if 0 <= offset <= 60:
        assert alike(text, now)
    elif not -2.5 < offset < 63:
        assert not alike(text, now)


@pytest.mark.parametrize("text", ["2024-13-45T99:99", "99:99:99", "1e400", "2024-05-01T12:00:30+99:99"])
def test_what_is_no_moment_is_compared_as_text(text: str) -> None:
    """Text that only looks like a moment is never taken for the clock's."""
    assert not alike(text, "2025-06-02T08:00:30Z")
    assert not alike(text, "08:00:30")
