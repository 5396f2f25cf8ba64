"""The account that a run leaves of itself, ``result.json``: as it begins, and as it ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from prodkit.decisions.answers import ACTIONS, RESULT_MIME
from prodkit.evidence import Outcome
from prodkit.files import write_text
from prodkit.runs.stops import Stop

__all__ = ["closed", "file_digest", "keep", "kept", "opened", "said"]


def opened(
    run_id: str, notebook: str, values: Mapping[str, Any], *, parent: str, basis: Mapping[str, Any]
) -> dict[str, Any]:
    """What is known of a run before its first cell.

    Args:
        run_id: names its folder.
        notebook: its name.
        values: the parameters that were given.
        parent: the run that asked for it; empty if none did.
        basis: digests of what it stands on.
    """
    return {
        "schema": 1,
        "run_id": run_id,
        "notebook": notebook,
        "status": "running",
        "outcome": "error",  # until something better is known
        "action": None,
        "approval": None,
        "target_version": None,
        "generation": None,
        "clears_hold": False,
        "judged": None,
        "reasons": [],
        "evidence": [],
        "params": dict(values),
        "inputs": [],
        "outputs": {},
        "environment": {},
        "basis": dict(basis),
        "parent": parent,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": None,
    }


def closed(
    account: Mapping[str, Any], executed: Path, stop: Stop | None, *, seconds: float | None
) -> dict[str, Any]:
    """What is known of a run after its last cell.

    Args:
        account: as it was opened.
        executed: the notebook as it was saved.
        stop: why it ended early, if it did.
        seconds: how long it took, if that is known.
    """
    status = stop.status if stop else "succeeded"
    told = said(executed) if status == "succeeded" else {"reasons": [stop.sentence if stop else ""]}
    ended = {"status": status, "seconds": None if seconds is None else round(seconds, 2)}
    return {**account, **told, **ended, "basis": {**account["basis"], "executed": file_digest(executed)}}


def keep(account: Mapping[str, Any], folder: Path) -> None:
    """Write it into the run's folder, whole.

    Raises:
        OSError: the disk is full.
    """
    write_text(folder / "result.json", json.dumps(account, indent=2, allow_nan=False))


def kept(folder: Path) -> dict[str, Any]:
    """The account in a run's folder; empty if there is none that can be read."""
    try:
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def file_digest(executed: Path) -> str | None:
    """SHA-256 of a notebook as it was saved, so that no byte of it changes unseen; None if it never was."""
    try:
        return hashlib.sha256(executed.read_bytes()).hexdigest()
    except OSError:
        return None


def said(executed: Path) -> dict[str, Any]:
    """What the notebook's last cell has shown as its result, or why that is of no use."""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    shown = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    found = [data[RESULT_MIME] for data in shown if RESULT_MIME in data]
    if not found:
        return {"reasons": ["the notebook recorded no result"], "outcome": "inconclusive"}
    result = found[-1]
    if not isinstance(result, dict):
        return {"reasons": ["the notebook's result is not a mapping"]}
    try:
        json.dumps(result, allow_nan=False)
    except ValueError as error:
        return {"reasons": [f"the notebook's result is not strict JSON: {error}"]}
    for name, (rule, holds) in _RULES.items():
        if name in result and not holds(result[name]):
            return {"reasons": [f"the notebook's result is not usable: {name} must be {rule}"]}
    return {name: result[name] for name in (*_RULES, "params", "environment") if name in result}


def _mappings(value: Any, fits: Callable[[dict[str, Any]], bool]) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) and fits(each) for each in value)


def _is_evidence(item: dict[str, Any]) -> bool:
    numbers = [item.get(name) for name in ("value", "low", "high", "limit", "n")]
    sound = all(each is None or (isinstance(each, int | float) and each is not True) for each in numbers)
    return sound and isinstance(item.get("name"), str) and item.get("outcome") in _OUTCOMES


def _number(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


_OUTCOMES = get_args(Outcome)
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "outcome": (f"one of {', '.join(_OUTCOMES)}", lambda value: value in _OUTCOMES),
    "action": (f"one of {', '.join(ACTIONS)}, or null", lambda value: value is None or value in ACTIONS),
    "approval": (
        "proposed, approved, rejected or null",
        lambda value: value in (None, "proposed", "approved", "rejected"),
    ),
    "target_version": ("a whole number or null", _number),
    "generation": ("a whole number or null", _number),
    "clears_hold": ("true or false", lambda value: isinstance(value, bool)),
    "judged": ("a mapping or null", lambda value: value is None or isinstance(value, dict)),
    "reasons": (
        "a list of texts",
        lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    ),
    "evidence": (
        "a list of mappings with a name, an outcome, and numbers or null",
        lambda value: _mappings(value, _is_evidence),
    ),
    "inputs": (
        "a list of mappings with a name",
        lambda value: _mappings(value, lambda item: isinstance(item.get("name"), str)),
    ),
    "outputs": ("a mapping", lambda value: isinstance(value, dict)),
}
