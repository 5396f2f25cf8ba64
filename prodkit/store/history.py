"""The champion's history: events chained by their hashes, and the pointer that a replay of them gives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from prodkit.errors import StoreError

__all__ = [
    "ACTIONS",
    "Champion",
    "Event",
    "Replay",
    "chain_problems",
    "differences",
    "moved",
    "open_proposals",
    "parsed_json",
    "replay",
    "sealed",
    "strict_json",
    "times_digest",
]

# What may be proposed to a person. A retraining is only recorded: somebody else carries it out.
ACTIONS = ("promote", "rollback", "hold", "release", "retrain")


@dataclass(frozen=True)
class Champion:
    """The pointer: which version answers, which one did before, and how often that has changed.

    ``generation`` counts promotions and rollbacks; ``hold`` is the reason of a hold, empty without one.
    """

    version: int | None = None
    predecessor: int | None = None
    generation: int = 0
    hold: str = ""
    frozen: bool = False


@dataclass(frozen=True)
class Event:
    """One line of the append-only history.

    ``kind`` is register, decide, promote, rollback, quarantine, readmit, hold, release, accept, freeze, thaw,
    propose, approve, reject, sign, delete, plan or upgrade. ``generation`` is the champion's after the event; that of a
    decision and of a proposal is the one that was judged.
    ``digest`` covers every other field, the time included, and ``previous``, the digest before it.
    """

    number: int
    kind: str
    version: int | None
    generation: int
    run_id: str
    actor: str
    reason: str
    detail: dict[str, Any]
    digest: str
    previous: str
    created_at: str = field(default="", compare=False)


@dataclass
class Replay:
    """What a history amounts to.

    ``versions`` maps each registered and not deleted number to the detail of its registration, and its ``run``;
    ``predecessors`` maps a version to whom it replaced when it was last promoted.
    """

    champion: Champion = field(default_factory=Champion)
    versions: dict[int, dict[str, Any]] = field(default_factory=dict)
    predecessors: dict[int, int | None] = field(default_factory=dict)
    quarantined: set[int] = field(default_factory=set)

    def after_rollback(self) -> tuple[int | None, int | None]:
        """Champion and predecessor that a rollback now would give.

        The predecessor is whom the restored version had itself replaced, if that one may still serve.
        """
        restored = self.champion.predecessor
        before = None if restored is None else self.predecessors.get(restored)
        barred = {*self.quarantined, self.champion.version}
        return restored, before if before in self.versions and before not in barred else None


def strict_json(document: Any, *, name: str, sort: bool = False) -> str:
    """Compact JSON text, the same for the same document.

    Raises:
        StoreError: it holds NaN, infinity or anything else that JSON does not know.

    >>> strict_json({"b": 1, "a": [None]}, name="x", sort=True)
    '{"a":[null],"b":1}'
    """
    try:
        return json.dumps(document, sort_keys=sort, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        fix = "Use text, finite numbers, booleans, lists and mappings; None where a number is missing."
        raise StoreError(name, rule="must be plain JSON", value=str(error), fix=fix) from error


def parsed_json(text: str, *, name: str) -> dict[str, Any]:
    """The mapping that :func:`strict_json` wrote; StoreError when the text was damaged since."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise StoreError(name, rule="must be JSON", value=str(error), fix="Restore a backup.") from error
    if not isinstance(document, dict):
        raise StoreError(name, rule="must be a mapping", value=type(document).__name__)
    return document


def sealed(event: Event, *, timed: bool = True) -> Event:
    """The event with the digest of its content and of all before it: SHA-256 of its canonical JSON.

    Args:
        event: whose digest is made.
        timed: whether the time belongs to it, as it does since layout 2.
    """
    left_out = {"digest"} if timed else {"digest", "created_at"}
    content = {name: value for name, value in asdict(event).items() if name not in left_out}
    text = strict_json(content, name=f"event {event.number}", sort=True)
    return replace(event, digest=hashlib.sha256(text.encode()).hexdigest())


def times_digest(events: Iterable[Event]) -> str:
    """SHA-256 of when events happened: an ``upgrade`` event seals it for those whose digests leave it out."""
    return hashlib.sha256("\n".join(event.created_at for event in events).encode()).hexdigest()


def moved(champion: Champion, event: Event) -> Champion:
    """The champion after an event.

    A rollback's new predecessor stands in its ``detail``, since finding it takes the whole history.
    """
    match event.kind:
        case "promote" | "rollback" as kind:
            return replace(
                champion,
                version=event.version,
                predecessor=champion.version if kind == "promote" else event.detail.get("predecessor"),
                generation=champion.generation + 1,
            )
        case "hold" | "release" | "accept":
            return replace(champion, hold=event.reason if event.kind == "hold" else "")
        case "freeze" | "thaw":
            return replace(champion, frozen=event.kind == "freeze")
    return champion


def replay(events: Iterable[Event]) -> Replay:
    """The state that a history leads to, from nothing."""
    state = Replay()
    for event in events:
        match event.kind, event.version:
            case "register", int(number):
                state.versions[number] = event.detail | {"run": event.run_id}
            case "delete", int(number):
                state.versions.pop(number, None)
            case "quarantine", int(number):
                state.quarantined.add(number)
            case "readmit", int(number):
                state.quarantined.discard(number)
            case "promote", int(number):
                state.predecessors[number] = state.champion.version
        state.champion = moved(state.champion, event)
    return state


def chain_problems(events: Iterable[Event], *, layout: int = 2) -> list[str]:
    """Each place where the chain of hashes does not hold, in words; empty when it does.

    Args:
        events: oldest first.
        layout: of the store; events of layout 1 come before an ``upgrade`` event, or fill a store of layout 1.
    """
    chain = list(events)
    upgrade = next((event for event in chain if event.kind == "upgrade"), None)
    timed_from = upgrade.number if upgrade else 1 if layout > 1 else len(chain) + 1
    problems, number, previous = [], 0, ""
    for event in chain:
        if event.number != number + 1:
            problems.append(f"event {number + 1} is missing: {event.number} follows {number}")
        if event.previous != previous:
            problems.append(f"event {event.number} does not follow from the one before it")
        if sealed(event, timed=event.number >= timed_from).digest != event.digest:
            problems.append(f"event {event.number} ({event.kind}) was changed after it was written")
        number, previous = event.number, event.digest
    if upgrade and upgrade.detail.get("times") != times_digest(chain[: upgrade.number - 1]):
        problems.append("the time of an event was changed before the store was upgraded")
    return problems


def differences(state: Replay, champion: Champion, versions: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """Where champion and versions are not what the history leads to, in words.

    ``versions`` maps a number to its ``quarantined``, its ``run``, and the digests of ``artifact`` and ``manifest``.
    """
    problems = []
    if champion != state.champion:
        problems.append(f"the champion is {champion}, but the history leads to {state.champion}")
    for number in sorted(versions.keys() ^ state.versions.keys()):
        which = "has no registration" if number in versions else "is registered, but its row is missing"
        problems.append(f"version {number} {which}")
    for number in sorted(versions.keys() & state.versions.keys()):
        expected = state.versions[number] | {"quarantined": number in state.quarantined}
        problems += [
            f"version {number}: {part} is not what the history says"
            for part, value in versions[number].items()
            if value != expected.get(part)
        ]
    return problems


def open_proposals(events: Iterable[Event]) -> Mapping[str, Event]:
    """The proposals that nobody has approved or rejected since, by run."""
    waiting: dict[str, Event] = {}
    for event in events:
        if event.kind == "propose":
            waiting[event.run_id] = event
        elif event.kind in ("approve", "reject"):
            waiting.pop(event.run_id, None)
    return waiting
