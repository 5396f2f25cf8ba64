"""From evidence to one action: the ladder on which a lower rung never overrules a higher one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from prodkit.decisions.economy import Economics
from prodkit.evidence import Evidence, Outcome, overall
from prodkit.store.history import Champion

__all__ = ["Action", "Decision", "judgement", "promotion", "sentence"]

Action = Literal["keep", "watch", "rollback", "retrain", "hold", "promote", "reject"]


@dataclass(frozen=True)
class Decision:
    """One action, and why.

    Attributes:
        action: what is to be done.
        outcome: what the evidence came to.
        reasons: sentences, the deciding one first.
        evidence: all that was weighed.
        target_version: the version to promote, or the one to return to; None where no pointer moves.
        generation: of the champion that was judged; carried out only while it is still that one.
        clears_hold: the input is sound again, so an earlier hold ends.
        judged: the rule, and what it was given besides the evidence, as plain JSON: with both, and nothing else,
            :func:`prodkit.decisions.record.decided_again` comes to the same decision.
    """

    action: Action
    outcome: Outcome
    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    target_version: int | None
    generation: int
    clears_hold: bool = False
    judged: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        """Of a retraining, which rows to learn from."""
        economics = self.judged.get("economics") or {}
        return economics.get("result", {}).get("recipe") or "all"


# Of the findings that may act, by the first word of their names.
_RUNGS = {"health": 2, "performance": 3, "economy": 3}
_COOLDOWN = "cooldown"  # says nothing of the champion, only that it is too soon to try something new
_ROW_COUNT = "contract.rows"
_CHALLENGER = ("performance.challenger", "performance.challenger_since")


def promotion(evidence: Sequence[Evidence], *, challenger: int, generation: int) -> Decision:
    """Promote only on a full set of passes; reject on a failure; otherwise leave all as it is."""
    outcome = overall(evidence)
    action: Action = {"pass": "promote", "fail": "reject"}.get(outcome, "keep")  # type: ignore[assignment]
    decisive = [item for item in evidence if item.outcome == outcome and outcome != "pass"]
    reasons = [sentence(item) for item in decisive] or [sentence(item) for item in evidence[:1]]
    reasons = reasons or ["no evidence was given"]
    target = challenger if action == "promote" else None
    judged = {"rule": "promotion", "challenger": challenger, "generation": generation}
    return Decision(action, outcome, tuple(reasons), tuple(evidence), target, generation, judged=judged)


def judgement(
    evidence: Sequence[Evidence],
    *,
    champion: Champion,
    retrain_now: bool = False,
    policy: str = "proof",
    economics: Economics | Mapping[str, Any] | None = None,
) -> Decision:
    """Keep, watch, roll back, retrain or hold.

    What may ask to train, and to go back, depends on the policy. ``economy`` and ``schedule``: ``economy.training``,
    which says whether a training pays, or is due, and ``economy.predecessor``, how probable it is that the predecessor
    is better; whatever else of rung 3 fails is an alarm. ``proof``: the rest of rung 3, as follows.

    Names that the ladder knows: ``contract.*`` (rung 1), ``health.champion`` and ``health.predecessor`` (rung 2; the
    same with ``_latency``), ``performance.predecessor``, ``performance.predecessor_ranking``,
    ``performance.challenger``, its ``_ranking`` and ``performance.challenger_since`` (rung 3: would it have been
    better, in this window or since the promotion?). Once a challenger is, ``performance.predecessor_instead`` says
    whether going back would do, and ``performance.challenger_over_predecessor`` what training anew would gain beyond
    that: if it is more than its cost, and than half of the whole gain, going back is no way out. The number of rows,
    ``contract.rows``, vetoes as the others of rung 1 do, but asks for ``watch``: rows that did not come cannot be held
    back, and those that came are sound.
    Every other finding can at most ask for ``watch``, and so does one of these that stands on another rung, that is
    told twice and not the same, or whose numbers do not bear out its failure. Until ``cooldown`` passes, a better
    challenger is a reason to watch.

    Args:
        evidence: all findings, in any order.
        champion: the pointer that was judged; a hold in force ends when the contract passes.
        retrain_now: ask for a retraining even if the evidence does not.
        policy: ``economy``, ``proof`` or ``schedule``.
        economics: what ``economy.training`` rests on, for the record.
    """
    contract = overall(item for item in evidence if item.rung == 1)
    basis = economics.to_dict() if isinstance(economics, Economics) else dict(economics or {})
    judged: dict[str, Any] = {"rule": "judgement", "champion": asdict(champion), "retrain_now": retrain_now}
    judged |= {} if policy == "proof" else {"policy": policy, "economics": basis}
    action, because = _verdict(
        evidence, contract, predecessor=champion.predecessor, retrain_now=retrain_now, policy=policy
    )
    return Decision(
        action,
        "fail" if action in ("rollback", "retrain", "hold") else _without_drift(evidence),
        tuple(item if isinstance(item, str) else sentence(item) for item in because),
        tuple(evidence),
        champion.predecessor if action == "rollback" else None,
        champion.generation,
        bool(champion.hold) and contract == "pass",
        judged,
    )


def _verdict(
    evidence: Sequence[Evidence],
    contract: Outcome,
    *,
    predecessor: int | None,
    retrain_now: bool,
    policy: str,
) -> tuple[Action, Sequence[Evidence | str]]:
    """The action, and what it rests on: the strongest rung that has something to say."""
    named = _grounds(evidence)
    for kind in ("", "_latency"):
        ill, well = named.get(f"health.champion{kind}"), named.get(f"health.predecessor{kind}")
        if predecessor is not None and _is_supported(ill) and ill and well and well.outcome == "pass":
            return "rollback", [ill, well]
    failed = [item for item in evidence if item.rung == 1 and item.outcome == "fail"]
    if broken := [item for item in failed if item.name != _ROW_COUNT]:
        return "hold", [*broken, *(item for item in evidence if item.name == "hold.lasting")]
    if contract == "fail":
        return "watch", failed
    if contract != "pass":
        unchecked = [item for item in evidence if item.rung == 1]
        return "keep", unchecked or ["the input could not be checked"]
    better, ahead = _by_proof(named) if policy == "proof" else _by_economy(named)
    cooling = [item for item in evidence if item.name == _COOLDOWN and item.outcome != "pass"]
    if predecessor is not None and ahead:
        return "rollback", ahead
    if better and not cooling:
        return "retrain", better
    if retrain_now:
        return "retrain", ["a retraining was asked for (retrain_now)"]
    if better:
        return "watch", [*cooling, *better]
    if alarms := sorted((item for item in evidence if item.outcome == "fail"), key=lambda item: item.rung):
        return "watch", alarms
    unsure = [item for item in evidence if item.outcome in ("error", "inconclusive") and item not in cooling]
    return "keep", unsure or ["nothing that was looked at speaks against the champion"]


def _by_economy(named: dict[str, Evidence]) -> tuple[list[Evidence], list[Evidence]]:
    """What asks to train anew, and what to go back."""
    training, predecessor = named.get("economy.training"), named.get("economy.predecessor")
    return [training] if training and _is_supported(training) else [], (
        [predecessor] if predecessor and _is_supported(predecessor) else []
    )


def _by_proof(named: dict[str, Evidence]) -> tuple[list[Evidence], list[Evidence]]:
    """The same by tests that stay valid however often one looks."""
    better = _challenger_ahead(named)
    ahead = _predecessor_ahead(named) or _predecessor_instead(named, better)
    return better, [] if _far_better(named, better) else ahead


def _predecessor_ahead(named: dict[str, Evidence]) -> list[Evidence]:
    """What shows that the predecessor serves better: a smaller loss, or a better ranking at no greater loss."""
    loss, ranking = named.get("performance.predecessor"), named.get("performance.predecessor_ranking")
    if loss is None or loss.outcome == "error":
        return []
    found = [loss] if _is_supported(loss) else []
    if ranking is not None and _is_supported(ranking) and loss.value is not None and loss.value > 0:
        found.append(ranking)
    return found


def _challenger_ahead(named: dict[str, Evidence]) -> list[Evidence]:
    """What shows that a fresh challenger serves better: a smaller loss, or a better ranking at a loss that pays."""
    found = [named[name] for name in _CHALLENGER if _is_supported(named.get(name))]
    loss, ranking = named.get("performance.challenger"), named.get("performance.challenger_ranking")
    if ranking is None or not _is_supported(ranking) or loss is None or loss.outcome == "error":
        return found
    pays = loss.value is not None and loss.limit is not None and loss.value > loss.limit
    return [*found, ranking] if pays else found


def _predecessor_instead(named: dict[str, Evidence], better: Sequence[Evidence]) -> list[Evidence]:
    """Where a challenger is better: what shows that the predecessor is, too."""
    instead = named.get("performance.predecessor_instead")
    if not better or instead is None or instead.outcome != "fail":
        return []
    shown = instead.low is not None and instead.low > 0 and (instead.value or 0.0) > (instead.limit or 0.0)
    return [instead, *better] if shown else []


def _far_better(named: dict[str, Evidence], better: Sequence[Evidence]) -> bool:
    """Where a challenger is better: whether going back would regain less than half of what training anew does."""
    beyond, gain = named.get("performance.challenger_over_predecessor"), named.get("performance.challenger")
    if not better or beyond is None or gain is None or None in (beyond.value, beyond.limit, gain.value):
        return False
    return beyond.value > max(beyond.limit, gain.value / 2)  # type: ignore[operator,type-var]


def _grounds(evidence: Sequence[Evidence]) -> dict[str, Evidence]:
    """What may act, by name: findings on their own rung, and told once."""
    told = Counter(item.name for item in set(evidence))
    rungs = {item.name: _RUNGS.get(item.name.split(".")[0]) for item in evidence}
    return {item.name: item for item in evidence if told[item.name] == 1 and item.rung == rungs[item.name]}


def _is_supported(item: Evidence | None) -> bool:
    """A failure whose numbers show it: what was counted, or the near end of an interval, lies beyond the limit."""
    if item is None or item.outcome != "fail" or item.limit is None:
        return False
    if item.rung == _RUNGS["health"] or item.name.startswith("economy."):
        return (
            item.value is not None
            and min(item.value, item.value if item.low is None else item.low) > item.limit
        )
    return item.low is not None and item.low > item.limit


def _without_drift(evidence: Sequence[Evidence]) -> Outcome:
    """Neither an estimate nor drift is a decision: only the rungs above them make an outcome."""
    return overall(item for item in evidence if item.rung < 4 and item.name != _COOLDOWN)


def sentence(item: Evidence) -> str:
    """One line of evidence in words: what was measured, the number with its interval, the limit."""
    said = item.note or item.name
    if item.value is None or item.rung == 1 or item.name == "economy.training":  # the note gives its numbers
        return said
    interval = "" if item.low is None or item.high is None else f" ({item.low:.3g} to {item.high:.3g})"
    limit = "" if item.limit is None else f", limit {item.limit:.3g}"
    return f"{said}: {item.value:.3g}{interval}{limit}"
