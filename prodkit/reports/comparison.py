"""Two runs side by side: parameters, numbers and figures, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from prodkit.reports.page import figure, rendered, wording

__all__ = ["Changes", "Number", "changes", "comparison"]

_MOST = 6


@dataclass(frozen=True)
class Number:
    """One finding in two runs: its values and outcomes, None where a run has none of that name."""

    name: str
    before: float | None
    after: float | None
    outcome_before: str | None
    outcome_after: str | None

    @property
    def difference(self) -> float | None:
        """How much more it is in the second run."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def turn(self) -> str:
        """How its outcome has turned, in words."""
        if self.outcome_before is None:
            return f"{self.outcome_after}, not there before"
        if self.outcome_after is None:
            return f"not there any more, was {self.outcome_before}"
        values = f" ({figure(self.before)} → {figure(self.after)})" if self.difference is not None else ""
        return f"{self.outcome_before} → {self.outcome_after}{values}"


@dataclass(frozen=True)
class Changes:
    """What differs between two runs.

    Attributes:
        facts: outcome, action, version, data and code, each as found in both; only those that differ.
        params: parameters that differ.
        numbers: every finding of either, in the order of the second.
    """

    facts: dict[str, tuple[Any, Any]]
    params: dict[str, tuple[Any, Any]]
    numbers: list[Number]

    def sentences(self) -> list[str]:
        """The changes in words, the weightiest first; that there is none is one, too."""
        said = [f"{name}: {_pair(*pair)}" for name, pair in self.facts.items()]
        said += [
            f"parameter {name}: {_pair(*pair)}" for name, pair in self.params.items() if name != "window"
        ]
        other = [row for row in self.numbers if row.outcome_before != row.outcome_after]
        said += [f"{row.name}: {row.turn}" for row in other[:_MOST]]
        if len(other) > _MOST:
            said.append(f"and {len(other) - _MOST} more with another outcome")
        return said or ["Nothing but the numbers."]


def changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> Changes:
    """Compare two results.

    Args:
        first: a ``result.json``.
        second: another; of the same notebook, or of two that share findings.
    """
    facts = {name: (fact(first), fact(second)) for name, fact in _FACTS.items()}
    asked = [*second["params"], *(name for name in first["params"] if name not in second["params"])]
    absent = "not given"
    params = {name: (first["params"].get(name, absent), second["params"].get(name, absent)) for name in asked}
    found = [
        {item["name"]: item for item in run["evidence"] if item["name"] != "drill"} for run in (first, second)
    ]
    names = [*found[1], *(name for name in found[0] if name not in found[1])]
    numbers = [
        Number(name, *(each.get(name, {}).get("value") for each in found),
               *(each.get(name, {}).get("outcome") for each in found))
        for name in names
    ]  # fmt: skip
    return Changes(
        facts={name: pair for name, pair in facts.items() if pair[0] != pair[1]},
        params={name: pair for name, pair in params.items() if pair[0] != pair[1]},
        numbers=numbers,
    )


def comparison(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    *,
    cells: tuple[Sequence[Any], Sequence[Any]] = ((), ()),
) -> str:
    """The page that shows two runs side by side.

    Args:
        first: a run's ``result.json``.
        second: another's.
        cells: of both notebooks as executed, for their figures.
    """
    found = changes(first, second)
    return rendered(
        "comparison",
        title=f"{first['run_id']} and {second['run_id']}",
        runs=(first, second),
        changes=found,
        figures=_pairs(*map(_figures, cells)),
    )


_FACTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "status": lambda run: run["status"],
    "outcome": lambda run: run["outcome"],
    "action": lambda run: run["action"] or "none",
    "approval": lambda run: run["approval"] or "none",
    "version": lambda run: _version(run["outputs"].get("champion", run["outputs"].get("version"))),
    "code of prodkit": lambda run: _short(run.get("basis", {}).get("code")),
    "notebook": lambda run: _short(run.get("basis", {}).get("notebook")),
    "data": lambda run: _short(run.get("basis", {}).get("data")),
}


def _version(number: Any) -> str:
    return "none" if number is None else f"v{number}"


def _short(digest: Any) -> str:
    return f"{str(digest)[:12]}…" if digest else "unknown"


def _pair(before: Any, after: Any) -> str:
    return f"{wording(before, most=60)} → {wording(after, most=60)}"


def _figures(cells: Sequence[Any]) -> dict[str, tuple[str, str]]:
    """Picture and text of each figure, by the heading it stands under and its number there."""
    found: dict[str, tuple[str, str]] = {}
    heading = ""
    for cell in cells:
        source = "".join(cell.get("source", ""))
        if cell.get("cell_type") == "markdown" and source.startswith("#"):
            heading = source.partition("\n")[0].lstrip("# ")
        for output in cell.get("outputs", []):
            picture = output.get("data", {}).get("image/png")
            if picture and not heading.startswith(
                "Explore"
            ):  # what a reader picks there says nothing of the run
                number = sum(name.startswith(f"{heading} · ") for name in found) + 1
                alt = output.get("metadata", {}).get("image/png", {}).get("alt") or heading
                found[f"{heading} · {number}"] = "".join("".join(picture).split()), alt
    return found


def _pairs(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Figures of the same place together, in the order of the first, then those that only the second has."""
    names = dict.fromkeys(name for pair in zip_longest(first, second) for name in pair if name is not None)
    return [(name.removesuffix(" · 1"), first.get(name), second.get(name)) for name in names]
