"""What counts as the same output: numbers within a tolerance, figures by their pixels, and what cannot repeat."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

from prodkit.verification.clocks import Span, is_own_duration, shows_time_of
from prodkit.verification.pictures import figure_digest, plain_svg
from prodkit.verification.traces import settled_text

__all__ = ["Difference", "Likeness"]

WIDGET = "application/vnd.jupyter.widget-view+json"  # holds the random id of a live object
_FIGURES = ("image/png", "image/jpeg")
_SHOWN = 110  # characters of a text that a difference shows

_NUMBER = r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?!\w|\.\d)"
_CLOCK = r"\d{2}:\d{2}:\d{2}(?:[.,]\d+)?"
_MOMENT = rf"\d{{4}}-\d{{2}}-\d{{2}}(?:[T ](?:{_CLOCK}|\d{{2}}:\d{{2}})(?:Z|[+-]\d{{2}}:?\d{{2}})?)?"
_CTIME = rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{{2}} [ \d]\d {_CLOCK} \d{{4}}"
_LENGTH = r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)? ?(?:ns|µs|μs|us|ms|s|sec|seconds|min|minutes)\b"
_TOKEN = re.compile(
    rf"(?P<moment>(?<![\d-])(?:{_MOMENT}|{_CTIME})(?![\d-])|(?<![\d:]){_CLOCK}(?![\d:]))"
    rf"|(?P<length>{_LENGTH})|(?P<number>{_NUMBER})"
)


class Difference(NamedTuple):
    """One thing that is not as recorded: what it is, what the record says, what was found."""

    what: str
    recorded: str
    found: str


@dataclass(frozen=True)
class Likeness:
    """When two outputs are alike.

    Two texts are alike when they differ only in blanks, in floating point numbers within the tolerance (whole numbers
    must be equal), in addresses of objects, in progress bars, in what IPython's timing magics print, and in moments
    and durations: those count as the clock's only if they lie in the time in which their run was made,
    so that a moment of the data is compared like any other text. Figures are alike when they have the same pixels.

    Attributes:
        relative: tolerance of a float, as a share of the larger one, and
        absolute: the smallest difference that counts.
        recorded: when the recorded outputs came about, and
        found: when the others did. Without them no moment is taken for the clock's.
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
        """What differs between two lists of outputs of one cell, kind by kind, in their order within a kind.

        Args:
            recorded: outputs as nbformat has them, the parts of a stream put together.
            found: the same, of the other run.
        """
        then, now, differences = _by_kind(recorded), _by_kind(found), []
        for kind in [*then, *(kind for kind in now if kind not in then)]:
            pair = then.get(kind, []), now.get(kind, [])
            if len(pair[0]) != len(pair[1]):
                shown = (f"{len(each)}: {_shortened(each)}" if each else "none" for each in pair)
                differences.append(Difference(kind, *shown))
                continue
            for one, other in zip(*pair, strict=True):
                differences += [
                    Difference(f"{kind}{where}", was, is_)
                    for where, was, is_ in self.contents(kind, one, other)
                ]
        return differences

    def contents(self, kind: str, recorded: Any, found: Any) -> list[Difference]:
        """What differs between two outputs of one kind, a MIME type or the name of a stream."""
        if kind == WIDGET:
            return []
        if kind in _FIGURES:
            then, now = figure_digest(recorded), figure_digest(found)
            return [] if then == now and then.startswith("drawn") else [Difference("", then, now)]
        if isinstance(recorded, str) and isinstance(found, str):
            if kind == "image/svg+xml":
                recorded, found = plain_svg(recorded), plain_svg(found)
            return self.texts(recorded, found)
        return self.values(recorded, found)

    def texts(self, recorded: str, found: str) -> list[Difference]:
        """The first line in which two texts differ, if there is one."""
        for old, new in self.renamed.items():
            found = found.replace(old, new)
        pairs = zip_longest(settled_text(recorded).split("\n"), settled_text(found).split("\n"))
        for number, (then, now) in enumerate(pairs, 1):
            if then is None or now is None or not self._lines(then, now):
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

    def _walk(self, at: str, then: Any, now: Any, skipped: frozenset[str]) -> Iterable[Difference]:
        if at in skipped:
            return
        if isinstance(then, Mapping) and isinstance(now, Mapping):
            for key in [*then, *(key for key in now if key not in then)]:
                yield from self._walk(f"{at}.{key}", then.get(key, _NOTHING), now.get(key, _NOTHING), skipped)
        elif isinstance(then, list | tuple) and isinstance(now, list | tuple):
            for n, (one, other) in enumerate(zip_longest(then, now, fillvalue=_NOTHING)):
                name = one.get("name", n) if isinstance(one, Mapping) else n
                yield from self._walk(f"{at}[{name}]", one, other, skipped)
        elif isinstance(then, str) and isinstance(now, str):
            yield from (Difference(at, each.recorded, each.found) for each in self.texts(then, now))
        elif not self._same(then, now):
            yield Difference(at, _json(then), _json(now))

    def _same(self, then: Any, now: Any) -> bool:
        floats = [each for each in (then, now) if isinstance(each, float)]
        numbers = [each for each in (then, now) if isinstance(each, int) and not isinstance(each, bool)]
        if floats and len(floats) + len(numbers) == 2:
            return self._close(float(then), float(now))
        return type(then) is type(now) and bool(then == now)

    def _close(self, then: float, now: float) -> bool:
        both_missing = math.isnan(then) and math.isnan(now)
        return both_missing or math.isclose(then, now, rel_tol=self.relative, abs_tol=self.absolute)

    def _lines(self, then: str, now: str) -> bool:
        if then == now:
            return True
        tokens = list(_TOKEN.finditer(then)), list(_TOKEN.finditer(now))
        between = (" ".join(_TOKEN.sub("\0", line).split()) for line in (then, now))
        return len(set(between)) == 1 and all(map(self._tokens, *tokens))

    def _tokens(self, then: re.Match[str], now: re.Match[str]) -> bool:
        if then[0] == now[0]:
            return True
        kind = then.lastgroup
        if kind != now.lastgroup:
            return False
        (one, unit), (other, its) = (_split(each[0]) for each in (then, now))
        if kind != "moment" and unit == its and set(one + other) & set(".eE"):
            values = float(one), float(other)
            if all(map(math.isfinite, values)) and self._close(*values):
                return True
        if self.recorded is None or self.found is None:
            return False
        test = is_own_duration if kind == "length" else shows_time_of
        return test(then[0], self.recorded) and test(now[0], self.found)


_NOTHING = object()  # stands where one of two has no such item


def _split(number: str) -> tuple[str, str]:
    """A number and the unit behind it."""
    unit = re.search(r" ?[a-zµμ]*$", number)
    return (number[: unit.start()], unit[0]) if unit else (number, "")


def _by_kind(outputs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """All contents of a kind: a MIME type, a stream, the parts of an error, or what is said about the data."""
    kinds: dict[str, list[Any]] = {}
    for output in outputs:
        if output["output_type"] == "stream":
            kinds.setdefault(output["name"], []).append(output["text"])
        elif output["output_type"] == "error":
            kinds.setdefault("error", []).append(f"{output['ename']}: {output['evalue']}")
        else:
            for kind, content in output.get("data", {}).items():
                kinds.setdefault(kind, []).append("".join(content) if _is_lines(content) else content)
            kinds.setdefault("metadata", []).append(output.get("metadata", {}))
    return kinds


def _is_lines(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(line, str) for line in content)


def _json(value: Any) -> str:
    return _cut("nothing" if value is _NOTHING else json.dumps(value, default=repr, ensure_ascii=False))


def _shortened(contents: Sequence[Any]) -> str:
    return _cut(" ".join(str(contents[0]).split()))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _around(then: str | None, now: str | None) -> tuple[str, str]:
    """Both lines, or the parts of them around the first sign that differs."""
    if then is None or now is None:
        return tuple("nothing" if line is None else _cut(line.strip()) for line in (then, now))  # type: ignore[return-value]
    first = next(
        (n for n, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now))
    )
    start = max(0, first - _SHOWN // 2)
    lead = "..." if start else ""
    return lead + _cut(then[start:].strip()), lead + _cut(now[start:].strip())
