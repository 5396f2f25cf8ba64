"""The site: one page over all runs, and one for each version of the model, all from what runs and store have kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prodkit.params import LEAD
from prodkit.reports.page import rendered
from prodkit.reports.timeline import Chapter, chapters, drawing
from prodkit.store.history import Champion, Event, open_proposals
from prodkit.store.registry import Version

__all__ = ["Site", "lead_metric"]

_OUTCOMES = ("pass", "fail", "inconclusive", "error")


@dataclass(frozen=True)
class Site:
    """All that the pages are made of.

    Attributes:
        documents: results of all runs, oldest first.
        versions: of the store.
        events: its history.
        champion: who serves now.
        measured: the main metric of each window, oldest first, see :func:`prodkit.reports.timeline.chapters`.
        options: what ``prodkit models`` has to be told to find this store, as typed.
    """

    documents: Sequence[Mapping[str, Any]]
    versions: Sequence[Version]
    events: Sequence[Event]
    champion: Champion
    measured: Sequence[Mapping[str, Any]] = ()
    options: str = ""

    @property
    def metric(self) -> str:
        """The main metric."""
        return lead_metric(self.versions)

    def pages(self) -> dict[str, str]:
        """Every page by its place under ``outputs/``."""
        told = chapters(self.documents, metric=self.metric, measured=self.measured)
        pages = {f"versions/v{each.number}.html": self._version_page(each, told) for each in self.versions}
        return {"index.html": self._index(told), **pages}

    def _index(self, told: Sequence[Chapter]) -> str:
        return rendered(
            "index",
            title="What happened to the model",
            scripted=True,
            champion=self.champion,
            since=next((e for e in reversed(self.events) if e.kind in ("promote", "rollback")), None),
            asked=self._asked(),
            told=told,
            drawing=drawing(told) if told else None,
            metric=self.metric,
            versions=[(each, self._standing(each)) for each in reversed(self.versions)],
            runs=list(reversed(self.documents)),
            notebooks=sorted({run["notebook"] for run in self.documents}),
            outcomes=_OUTCOMES,
        )

    def _asked(self) -> list[dict[str, Any]]:
        """What a person has to do or know now: a sentence, a reason, and what to type or open."""
        asked: list[dict[str, Any]] = []
        for event in open_proposals(self.events).values():
            verb = "approve" if event.generation == self.champion.generation else "reject"
            stale = (
                ""
                if verb == "approve"
                else " The champion has changed since, so that it can only be rejected."
            )
            what = f"{event.detail.get('action', 'action')} of version {event.version}" if event.version else str(
                event.detail.get("action"))  # fmt: skip
            command = f"prodkit models {verb} {event.run_id} --name YOU --reason WHY{self.options}"
            asked.append(
                {
                    "what": f"Proposed: {what}.{stale}",
                    "why": event.reason,
                    "command": command,
                    "run": event.run_id,
                }
            )
        if self.champion.version is None and self.versions:
            asked.append({"what": f"There is no champion yet: {self._waiting()}.", "why": ""})
        if self.champion.hold:
            why = f"{self.champion.hold}. The simple rule answers until a window is sound again."
            asked.append({"what": "The champion is on hold.", "why": why})
        if self.champion.frozen:
            command = f"prodkit models freeze --off --name YOU --reason WHY{self.options}"
            asked.append(
                {
                    "what": "The champion is frozen: nothing is promoted or rolled back.",
                    "why": "",
                    "command": command,
                }
            )
        for run in {run["notebook"]: run for run in self.documents}.values():
            if run["status"] in ("failed", "interrupted"):
                why = "; ".join(run["reasons"][:2])
                asked.append(
                    {
                        "what": f"The last run of {run['notebook']} {_ENDED[run['status']]}.",
                        "why": why,
                        "run": run["run_id"],
                    }
                )
        return asked

    def _waiting(self) -> str:
        """What became of the newest version that was judged."""
        judged = [
            run for run in self.documents if run["notebook"] == "validate" and run["status"] == "succeeded"
        ]
        if not judged:
            return "none of the versions has been judged"
        return (
            "too little evidence"
            if judged[-1]["outcome"] == "inconclusive"
            else f"validate says {judged[-1]['outcome']}"
        )

    def _standing(self, version: Version) -> str:
        """What a version is now."""
        if version.number == self.champion.version:
            return "champion"
        if version.quarantined:
            return "rolled back, in quarantine"
        if version.number == self.champion.predecessor:
            return "predecessor"
        served = any(event.kind == "promote" and event.version == version.number for event in self.events)
        return "retired" if served else "never promoted"

    def _version_page(self, version: Version, told: Sequence[Chapter]) -> str:
        number, manifest = version.number, version.manifest
        own = [event for event in self.events if event.version == number]
        register = next((event for event in own if event.kind == "register"), None)
        learned = ("model", "model_args", "features", "holdout", "folds", "search", "seed", "drill")
        return rendered(
            "version",
            title=f"Version {number}",
            version=version,
            standing=self._standing(version),
            trained_by=register.run_id if register else "",
            params={
                name: manifest.get("params", {}).get(name)
                for name in learned
                if manifest.get("params", {}).get(name)
            },
            importance=sorted(manifest.get("importance", {}).items(), key=lambda item: -item[1])[:10],
            judged=[
                run
                for run in self.documents
                if run["notebook"] == "validate" and run["outputs"].get("challenger") == number
            ],
            served=[each for each in told if each.version == number],
            metric=self.metric,
            events=self._told_of(number),
            known={run["run_id"] for run in self.documents},
        )

    def _told_of(self, number: int) -> list[dict[str, Any]]:
        """The events of a version, and those by which another one took its place."""
        found, serving = [], None
        for event in self.events:
            moved = event.kind in ("promote", "rollback")
            if event.version == number:
                found.append(asdict(event))
            elif moved and serving == number:
                found.append({**asdict(event), "kind": f"replaced by version {event.version}"})
            serving = event.version if moved else serving
        return found


_ENDED = {"failed": "failed", "interrupted": "was interrupted"}


def lead_metric(versions: Sequence[Version]) -> str:
    """The score that a reader looks at first, for the task of the newest version."""
    task = versions[-1].manifest.get("task") if versions else None
    return LEAD.get(task or "binary", LEAD["binary"])
