"""Old work that nobody needs any more: what it is, and its removal, which the history keeps a note of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prodkit.errors import ArtifactError, VersionError
from prodkit.runs.claims import clear, nobody_at_work, set_aside
from prodkit.settings import outputs_folder, resolve
from prodkit.store.history import open_proposals, replay
from prodkit.store.registry import Store

__all__ = ["OldWork", "clean", "old_work"]

_PERIODS = 6  # of the plan, whose runs and requests stay whatever their age: `monitor` looks back as far


@dataclass
class OldWork:
    """What may be removed.

    Attributes:
        before: what was done since then stays.
        runs: their ids; each has a folder, and is on record in the store.
        versions: their numbers; of each the artifact goes.
        requests: files of the request log.
        notes: what stays although it is old, and why.
    """

    before: datetime
    runs: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    requests: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self) -> list[dict[str, str]]:
        """How many of each kind there are, and how large they are."""
        folders = [_runs() / run_id for run_id in self.runs]
        files = [path for folder in folders for path in folder.glob("*")]
        kinds = {"runs": (len(folders), files), "request log": (len(self.requests), self.requests)}
        rows = [
            {"what": what, "count": f"{count:,}", "size": f"{_size(paths) / 1e6:,.1f} MB"}
            for what, (count, paths) in kinds.items()
        ]
        names = ", ".join(f"v{number}" for number in self.versions)
        return [*rows, {"what": "artifacts", "count": f"{len(self.versions):,}", "size": names}]


def old_work(store: Store, *, older: timedelta, now: datetime | None = None) -> OldWork:
    """What is older than so long, and nothing that still serves, waits or goes on refers to.

    Kept are the runs that made, judged or promoted champion and predecessor, that put the champion on hold, or that
    wait for a person, those of the last periods of the plan, and all runs that asked for one of these. Kept are the
    versions that serve or may come back by a rollback, that are proposed, that a kept run made, and the newest one.

    Args:
        store: on record in which the runs are; others are left alone.
        older: age from which on something is old.
        now: the moment that ages are counted from; the clock's if None.
    """
    before = (now or datetime.now(UTC)) - older
    events, champion = store.history(), store.champion()
    proposals = open_proposals(events)
    state = replay(events)
    newest = max(state.versions, default=None)  # it may be judged yet
    serving = {champion.version, champion.predecessor, *state.after_rollback(), newest} - {None}
    needed, since = _of_the_plan(store)
    needed |= proposals.keys()
    needed |= {event.run_id for event in events if event.version in serving and event.kind != "delete"}
    if champion.hold:
        needed.add([event for event in events if event.kind == "hold"][-1].run_id)
    _add_parents(store, needed)
    names = {path.name for path in _runs().glob("[!.]*")}
    runs = [run_id for run_id in store.ended_runs(before) if run_id in names]
    work = OldWork(before, runs=[run_id for run_id in runs if run_id not in needed])
    if kept := len(runs) - len(work.runs):
        work.notes.append(
            f"{kept} older runs stay: champion, predecessor, proposals or last periods need them"
        )
    proposed = {event.version for event in proposals.values()}
    registered = [event for event in events if event.kind == "register" and event.version in state.versions]
    for event in registered:
        is_old = datetime.fromisoformat(event.created_at) < before
        if (
            is_old
            and event.version not in serving | proposed
            and event.run_id not in needed
            and event.version
        ):
            work.versions.append(event.version)
    limit = min(before, since.replace(tzinfo=UTC) if since else before).timestamp()
    logs = sorted(Path(resolve("outputs/requests")).glob("[!.]*.parquet"))
    work.requests = [path for path in logs if path.stat().st_mtime < limit]
    return work


def clean(store: Store, work: OldWork, *, actor: str = "prodkit clean") -> list[str]:
    """Note in the history what goes, then remove it; what a killed call left is removed by the next one.

    Returns:
        What stays all the same, in words.

    Raises:
        LockedError: another process cleans or backs up this store.
    """
    notes = list(work.notes)
    with store.upkeep_turn():
        clear(_runs(), ".*")  # of a call that was killed
        reason = f"older than {work.before:%Y-%m-%d %H:%M} (UTC), and nothing refers to it"
        if work.runs or work.requests:
            store.record_cleaning(work.runs, requests=len(work.requests), actor=actor, reason=reason)
        for number in work.versions:
            try:
                store.delete(number, actor=actor, reason=reason)
            except (ArtifactError, VersionError) as error:  # it was promoted, proposed or changed meanwhile
                notes.append(str(error))
        store.remove_deleted()
        _remove_runs([*work.runs, *store.removed_runs()])
        with nobody_at_work(outputs_folder()) as alone:
            if alone:
                for path in work.requests:
                    path.unlink(missing_ok=True)
            elif work.requests:
                notes.append("the request log stays: a notebook is running, and may be reading it")
    return notes


def _remove_runs(run_ids: Iterable[str]) -> None:
    for run_id in dict.fromkeys(run_ids):
        if taken := set_aside(_runs() / run_id):
            taken.remove()


def _of_the_plan(store: Store) -> tuple[set[str], datetime | None]:
    """The runs of the last periods of the plan, and when these began."""
    plan = store.plan()
    steps = store.steps(plan["number"]) if plan else {}
    last = sorted({window.start for _, window in steps})[-_PERIODS:]
    runs = {step["run_id"] for (_, window), step in steps.items() if window.start in last}
    return runs, last[0] if last else None


def _add_parents(store: Store, run_ids: set[str]) -> None:
    """Add the runs that asked for these, and so on: their pages link to one another."""
    new: Sequence[str] = list(run_ids)
    while new:
        records = [(store.run(run_id) or {}).get("document", {}) for run_id in new]
        new = [parent for record in records if (parent := record.get("parent")) and parent not in run_ids]
        run_ids.update(new)


def _runs() -> Path:
    return outputs_folder() / "runs"


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
