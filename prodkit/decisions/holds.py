"""What is broken, who answers meanwhile, and when what is new may be normal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from typing import Any

from prodkit.decisions.paired import difference
from prodkit.decisions.trial import Trial
from prodkit.drift.profiles import ColumnProfile, Profile
from prodkit.evidence import Evidence, Window
from prodkit.models.bundle import Bundle
from prodkit.models.masks import MaskPrice
from prodkit.params import RollbackParams
from prodkit.store.history import Event
from prodkit.store.registry import Store

__all__ = ["LABELS", "Broken", "broken", "lasting_hold", "references"]

LABELS = "labels"  # stands among broken columns for the contract of labels
_ROWS = ("contract.rows", "contract.rows.copied", "contract.rows.repeated", "contract.columns")


@dataclass(frozen=True)
class Broken:
    """What is broken, and what that means for who answers.

    Attributes:
        columns: broken features, and ``labels`` where these are.
        other: what is broken that is no column, such as rows that come twice, or could not be checked.
        why: all that in one line.
        masked: features that the champion is asked without, since it still beats the simple rule.
        price: expected losses without the broken features, if they were asked for.
    """

    columns: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    why: str = ""
    masked: tuple[str, ...] = ()
    price: MaskPrice | None = None

    @classmethod
    def priced(cls, columns: Sequence[str], other: Sequence[str], why: str, *, bundle: Bundle) -> Broken:
        """The same with masks, where they pay for this version."""
        features = tuple(name for name in columns if name != LABELS)
        price = bundle.mask_price(features) if features else None
        pays = price is not None and price.pays and not other
        return cls(tuple(columns), tuple(other), why, features if pays else (), price)

    @classmethod
    def recorded(cls, hold: Event, *, version: int, bundle: Bundle) -> Broken:
        """What a hold on record says, for a version that serves: its masks are priced if it was not the one judged."""
        columns, other = hold.detail.get("columns", ()), hold.detail.get("other", ("not on record",))
        if hold.version != version or hold.detail.get("masked") is None:
            return cls.priced(columns, other, hold.reason, bundle=bundle)
        return cls(tuple(columns), tuple(other), hold.reason, tuple(hold.detail["masked"]))

    @property
    def distrust(self) -> str:
        """Why the champion must not be asked at all; empty where it may."""
        features = set(self.columns) - {LABELS}
        return self.why if self.other or (features and not self.masked) else ""

    def evidence(self, *, rows: int) -> list[Evidence]:
        """What each way to answer is expected to lose; nothing where no feature is broken."""
        price = self.price
        if price is None:
            return []
        loss, rule = (each if math.isfinite(each) else None for each in (price.masked, price.rule))
        note = "the simple rule answers: more than columns is broken" if self.other else str(price)
        line = Evidence("hold.expected_loss", "pass", value=loss, limit=rule, n=rows, rung=1, note=note)
        return [line]

    def to_dict(self) -> dict[str, Any]:
        """As it is kept with a hold, and with the profile of a window."""
        lists = {name: list(getattr(self, name)) for name in ("columns", "other", "masked")}
        return lists | {"distrust": self.distrust}


def broken(evidence: Sequence[Evidence], bundle: Bundle) -> Broken:
    """What is broken, by the evidence of the contract.

    Few rows are no break of what came: they are as sound as any.

    Args:
        evidence: rung 1.
        bundle: of the champion, whose masks are priced.
    """
    wrong = [item for item in evidence if item.rung == 1 and item.outcome != "pass"]
    wrong = [item for item in wrong if (item.name, item.outcome) != ("contract.rows", "fail")]
    columns, other = dict[str, None](), dict[str, None]()
    for item in wrong:
        column = item.name.removeprefix("contract.").rpartition(".")[0]
        if column in bundle.schema.names and item.name not in _ROWS:
            columns[column] = None
        elif column in (LABELS, bundle.schema.target):
            columns[LABELS] = None
        else:
            other[item.name.removeprefix("contract.")] = None
    return Broken.priced(list(columns), list(other), "; ".join(item.note for item in wrong), bundle=bundle)


def lasting_hold(store: Store, params: RollbackParams, trial: Trial | None, now: Broken) -> list[Evidence]:
    """A line that proposes to accept what is held, if the champion beats the simple rule all the same.

    Args:
        store: with the hold in force.
        params: of the run.
        trial: of the champion, masked where that pays, on the labelled rows of the window; None without any.
        now: what is broken in the window.
    """
    hold = store.held()
    since = hold.detail.get("since", "") if hold else ""
    if hold is None or trial is None or not since or since >= params.window.start.isoformat():
        return []
    if not now.columns or set(now.columns) != set(hold.detail["columns"]):
        return []
    lost = [trial.lost(name) for name in ("baseline", "champion")]
    gain = difference(*lost, blocks=trial.days, confidence=params.confidence, seed=params.seed)
    if not gain.low > 0:
        return []
    names, way = ", ".join(now.columns), "masked" if now.masked else "as it is"
    note = (
        f"on hold since {since[:10]} for the same reason ({names}), while the champion, {way}, beats the simple rule; "
        f"if this is normal now: prodkit models accept {hold.run_id}; gain in skill"
    )
    ends: dict[str, Any] = {"value": gain.value, "low": gain.low, "high": gain.high}
    return [Evidence("hold.lasting", "pass", limit=0.0, n=gain.n, rung=3, note=note, **ends)]


def references(store: Store, moment: datetime, *, version: int, bundle: Bundle) -> tuple[Profile, Profile]:
    """What a window that begins at a moment is held against: the last sound window before it, and the training.

    Of a column that a person has accepted as it came, after the training, the accepted windows stand for both.
    """
    document = store.latest_profile(moment, version=version)
    recent, training = Profile.from_dict(document) if document else bundle.recent, bundle.profile
    for event in store.accepted():
        windows = [Window.parse(text) for text in event.detail["windows"]]
        if not windows or max(window.end for window in windows) <= bundle.trained.end:
            continue
        held = [Profile.from_dict(document) for document in store.profiles_of(windows)]
        for name in event.detail["columns"]:
            training = _renewed(training, held, name)
            recent = recent if document else _renewed(recent, held, name)
    return recent, training


def _renewed(reference: Profile, held: Sequence[Profile], name: str) -> Profile:
    """The reference with a column as it was in other windows, where these have it."""
    parts = [each.columns[name] for each in held if name in each.columns and each.columns[name].rows]
    if name not in reference.columns or not parts:
        return reference
    same = [
        part for part in parts if part.bins == parts[-1].bins and part.kind == reference.columns[name].kind
    ]
    if not same:
        return reference
    return replace(reference, columns={**reference.columns, name: reduce(ColumnProfile.merge, same)})
