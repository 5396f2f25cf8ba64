"""When two outputs of a cell say the same: numbers within a tolerance, figures by their pixels, clocks by their run."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any, NamedTuple

from PIL import Image, ImageSequence

from prodkit.decisions.answers import MEASURED, RESULT_MIME

__all__ = ["Comparison", "Difference", "Span"]

_WIDGET = "application/vnd.jupyter.widget-view+json"  # holds the random id of a live object
_SVG = "image/svg+xml"
_NOTHING = object()  # stands where one of two has no such item
_SHOWN = 110  # characters of a text that a difference shows
_SLACK = timedelta(seconds=1.5)  # a record keeps whole seconds
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "min": 60.0, "minutes": 60.0}

_CLOCK = r"\d{2}:\d{2}:\d{2}(?:[.,]\d+)?"
_MOMENT = rf"\d{{4}}-\d{{2}}-\d{{2}}(?:[T ](?:{_CLOCK}|\d{{2}}:\d{{2}})(?:Z|[+-]\d{{2}}:?\d{{2}})?)?"
_CTIME = rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{{2}} [ \d]\d {_CLOCK} \d{{4}}"
_TOKEN = re.compile(
    rf"(?P<moment>(?<![\d-])(?:{_MOMENT}|{_CTIME})(?![\d-])|(?<![\d:]){_CLOCK}(?![\d:]))"
    r"|(?P<length>(?<![\w.])(?P<amount>\d+(?:\.\d+)?(?:e-?\d+)?)"
    r"(?P<unit> ?(?:ns|µs|μs|us|ms|s|sec|seconds|min|minutes))\b)"
    r"|(?P<number>(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?!\w|\.\d))"
)
# What an execution leaves in a text that says nothing about its result, and what stands there instead: as in a
# sanitize file of nbval.
_SANITIZE = [
    (re.compile(r"\bat 0x[0-9a-fA-F]+"), "at 0x"),
    (re.compile(r"\bipykernel_\d+/"), "ipykernel/"),
    (re.compile(r"\b(T_)[0-9a-f]{5}(?=[_\"' ])"), r"\1"),  # ids of a pandas Styler
    (re.compile(r"\b(sk-(?:container|estimator)-id)-[\w-]+"), r"\1"),
    (re.compile(r"^(CPU times|Wall time): .*$", re.M), r"\1"),  # %time
    (re.compile(r"^.* per loop \(mean ± std\. dev\. of .*$", re.M), "per loop"),  # %timeit
]
# A bar of tqdm: its name, how far it is, the times in brackets with what its owner adds, the rest.
_BAR = re.compile(
    r"^(?P<name>.*?)\s*(?:\d+%\|[^|]*\||(?=\d+\w+ \[\d))\s*(?P<count>\S+)"
    r" \[\d[\d:]*(?:<[\d:?]+)?, +[^\],]*(?P<added>[^\]]*)\](?P<rest>.*)$"
)


class Difference(NamedTuple):
    """One thing that is not as recorded: what it is, what the record says, what was found."""

    what: str
    recorded: str
    found: str


class Span(NamedTuple):
    """When a run took place, and how long the cell in question took (seconds, 0 if not known)."""

    start: datetime
    end: datetime
    cell_seconds: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """Compares outputs of two executions of the same cell.

    Two texts say the same when they differ only in blanks, in floating point numbers within the tolerance (whole
    numbers must be equal), in addresses of objects, in progress bars, in what IPython's timing magics print, and in
    moments and durations. A moment may differ only if each side lies within its own run, so that a moment of the data
    is compared like any other text. Figures are equal when they have the same pixels. Live widgets are not compared,
    nor what a result document measures on the machine (:data:`prodkit.decisions.answers.MEASURED`).

    Attributes:
        relative: tolerance of a float, as a share of the larger one, and
        absolute: the smallest difference that counts.
        recorded: when the recorded outputs were made, and
        found: when the others were. Without them no moment may differ.
        renamed: places that lie elsewhere in the found outputs, and their recorded names.
    """

    relative: float = 1e-6
    absolute: float = 1e-9
    recorded: Span | None = None
    found: Span | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)

    def outputs(
        self, recorded: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
    ) -> list[Difference]:
        """What differs between two lists of outputs of one cell, kind by kind, in their order within a kind."""
        then, now, differences = _by_kind(recorded), _by_kind(found), []
        for kind in dict.fromkeys([*then, *now]):
            one, other = then.get(kind, []), now.get(kind, [])
            name = "result" if kind == RESULT_MIME else kind
            if len(one) != len(other):
                shown = (
                    f"{len(each)}: {_cut(' '.join(str(each[0]).split()))}" if each else "none"
                    for each in (one, other)
                )
                differences.append(Difference(name, *shown))
                continue
            for pair in zip(one, other, strict=True):
                differences += [each._replace(what=name + each.what) for each in self._contents(kind, *pair)]
        return differences

    def _contents(self, kind: str, recorded: Any, found: Any) -> list[Difference]:
        """What differs between two outputs of one kind, a MIME type or the name of a stream."""
        if kind == _WIDGET:
            return []
        if kind.startswith("image/") and kind != _SVG:
            then, now = _figure_digest(recorded), _figure_digest(found)
            return [] if then == now and then.startswith("drawn") else [Difference("", then, now)]
        if isinstance(recorded, str) and isinstance(found, str):
            if kind == _SVG:
                recorded, found = _plain_svg(recorded), _plain_svg(found)
            return self.texts(recorded, found)
        if kind == RESULT_MIME and isinstance(recorded, Mapping) and isinstance(found, Mapping):
            # parameters that a later version has added need not be on record
            added = found.get("params", {}).keys() - recorded.get("params", {}).keys()
            return self.values(recorded, found, skipped=[*MEASURED, *(f".params.{name}" for name in added)])
        return self.values(recorded, found)

    def texts(self, recorded: str, found: str) -> list[Difference]:
        """The first line in which two texts differ, if there is one."""
        for old, new in self.renamed.items():
            found = found.replace(old, new)
        pairs = zip_longest(_sanitized(recorded).split("\n"), _sanitized(found).split("\n"))
        for number, (then, now) in enumerate(pairs, 1):
            if then is None or now is None or not self._same_line(then, now):
                place = f" line {number}" if number > 1 or "\n" in recorded else ""
                return [Difference(place, *_around(then, now))]
        return []

    def values(self, recorded: Any, found: Any, *, skipped: Iterable[str] = ()) -> list[Difference]:
        """Each place at which two values of JSON differ.

        Args:
            recorded: mappings, lists, texts, numbers, booleans, None.
            found: the other.
            skipped: places that are not compared, as differences name them: ``.a.b``; an item of a list that
                has a ``name`` is ``.list[its name]``.
        """
        return list(self._walk("", recorded, found, frozenset(skipped)))

    def _walk(self, at: str, then: Any, now: Any, skipped: frozenset[str]) -> Iterator[Difference]:
        if at in skipped:
            return
        if isinstance(then, Mapping) and isinstance(now, Mapping):
            for key in dict.fromkeys([*then, *now]):
                yield from self._walk(f"{at}.{key}", then.get(key, _NOTHING), now.get(key, _NOTHING), skipped)
        elif isinstance(then, list | tuple) and isinstance(now, list | tuple):
            for n, (one, other) in enumerate(zip_longest(then, now, fillvalue=_NOTHING)):
                name = one.get("name", n) if isinstance(one, Mapping) else n
                yield from self._walk(f"{at}[{name}]", one, other, skipped)
        elif isinstance(then, str) and isinstance(now, str):
            yield from (Difference(at, each.recorded, each.found) for each in self.texts(then, now))
        elif not self._same_value(then, now):
            yield Difference(at, _json(then), _json(now))

    def _same_value(self, then: Any, now: Any) -> bool:
        kinds = {type(then), type(now)}
        if float in kinds and kinds <= {float, int}:
            return self._close(float(then), float(now))
        return type(then) is type(now) and bool(then == now)

    def _close(self, then: float, now: float) -> bool:
        both_missing = math.isnan(then) and math.isnan(now)
        return both_missing or math.isclose(then, now, rel_tol=self.relative, abs_tol=self.absolute)

    def _same_line(self, then: str, now: str) -> bool:
        if then == now:
            return True
        between = (" ".join(_TOKEN.sub("\0", line).split()) for line in (then, now))
        return len(set(between)) == 1 and all(
            map(self._same_token, _TOKEN.finditer(then), _TOKEN.finditer(now))
        )

    def _same_token(self, then: re.Match[str], now: re.Match[str]) -> bool:
        if then[0] == now[0]:
            return True
        if then.lastgroup != now.lastgroup:
            return False
        if not then["moment"] and then["unit"] == now["unit"]:
            one, other = ((each["amount"] or each["number"]) for each in (then, now))
            values = float(one), float(other)
            if set(one + other) & set(".eE") and all(map(math.isfinite, values)) and self._close(*values):
                return True
        sides = ((then, self.recorded), (now, self.found))
        return all(span is not None and _shows_clock(token, span) for token, span in sides)


def _shows_clock(token: re.Match[str], span: Span) -> bool:
    """Whether a token is the clock's: a moment within the run, or most of the time that the cell took."""
    if token["length"]:
        seconds = float(token["amount"]) * _UNITS.get(token["unit"].strip(), 1.0)
        return 0.5 * span.cell_seconds <= seconds <= span.cell_seconds
    low, high = span.start - _SLACK, span.end + _SLACK
    try:
        if token["number"]:
            return low <= datetime.fromtimestamp(float(token["number"]), UTC) <= high
        return any(low <= moment <= high for moment in _readings(token["moment"], low, high))
    except (ValueError, OverflowError, OSError):
        return False


def _readings(text: str, low: datetime, high: datetime) -> Iterator[datetime]:
    """All that a moment may mean: one without an offset may be in UTC or in local time, one without a day on each."""
    for zone in (UTC, None):  # None: local time
        first, last = low.astimezone(zone), high.astimezone(zone)
        for day in sorted({first.date().isoformat(), last.date().isoformat()}):
            if text == day:
                yield low
            elif text[0].isalpha():
                yield datetime.strptime(text, "%a %b %d %H:%M:%S %Y").replace(tzinfo=first.tzinfo)
            elif ":" in text:
                moment = datetime.fromisoformat(text if text[4] == "-" else f"{day}T{text}")
                yield moment if moment.tzinfo else moment.replace(tzinfo=first.tzinfo)


def _sanitized(text: str) -> str:
    """The text without addresses of objects and timings, and with the last state of each progress bar only."""
    for pattern, instead in _SANITIZE:
        text = pattern.sub(instead, text)
    bars: dict[str, str] = {}
    lines: list[str] = []
    for line in re.split(r"[\r\n]", text.replace("\x1b[A", "")):
        if bar := _BAR.match(line):
            name = bar["name"].strip()
            bars[name] = f"{name} {bar['count']}{bar['added']}{bar['rest']}".strip()
        else:
            lines.append(line)
    return "\n".join([*(line for line in lines if line.strip()), *bars.values()]) if bars else text


def _figure_digest(picture: Any) -> str:
    """What a figure in base64 draws, whatever wrote it down: its size and a digest of its pixels."""
    digest = hashlib.sha256()
    try:
        with Image.open(io.BytesIO(base64.b64decode("".join(picture.split()), validate=True))) as image:
            for frame in ImageSequence.Iterator(image):
                about = frame.mode, frame.getpalette(), frame.info.get("transparency")
                digest.update(repr(about).encode() + frame.tobytes())
            return f"drawn {image.width}x{image.height}, {digest.hexdigest()[:12]}"
    except Exception as error:  # whatever a decoder says of garbage
        return f"no picture: {type(error).__name__}"


def _plain_svg(text: str) -> str:
    """A drawing without its date, and with its ids, which are random, numbered in order."""
    text = re.sub(r"<dc:date>.*?</dc:date>", "", text, flags=re.S)
    for number, name in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', text))):
        text = re.sub(rf'(["#]){re.escape(name)}(?=["\)])', rf"\g<1>id-{number}", text)
    return text


def _by_kind(outputs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """All contents of a kind: a MIME type, a stream, the parts of an error, or the metadata."""
    kinds: dict[str, list[Any]] = {}
    for output in outputs:
        if output["output_type"] == "stream":
            texts = kinds.setdefault(output["name"], [""])
            texts[0] += output["text"]  # how a stream was cut does not matter
        elif output["output_type"] == "error":
            kinds.setdefault("error", []).append(f"{output['ename']}: {output['evalue']}")
        else:
            for kind, content in output.get("data", {}).items():
                is_lines = isinstance(content, list) and all(isinstance(line, str) for line in content)
                kinds.setdefault(kind, []).append("".join(content) if is_lines else content)
            kinds.setdefault("metadata", []).append(output.get("metadata", {}))
    return kinds


def _json(value: Any) -> str:
    return _cut("nothing" if value is _NOTHING else json.dumps(value, default=repr, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _around(then: str | None, now: str | None) -> tuple[str, str]:
    """Both lines, or the parts of them around the first sign that differs."""
    if then is None or now is None:
        one, other = ("nothing" if line is None else _cut(line.strip()) for line in (then, now))
        return one, other
    differs = (n for n, (a, b) in enumerate(zip(then, now, strict=False)) if a != b)
    start = max(0, next(differs, min(len(then), len(now))) - _SHOWN // 2)
    lead = "..." if start else ""
    return lead + _cut(then[start:].strip()), lead + _cut(now[start:].strip())
