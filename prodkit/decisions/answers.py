"""How the question of a notebook is answered: the sentences for people, and the type of the result for the runner."""

from __future__ import annotations

from prodkit.decisions.decide import Action
from prodkit.evidence import Outcome

__all__ = ["ACTIONS", "FINDINGS", "MEASURED", "RESULT_MIME"]

RESULT_MIME = "application/vnd.prodkit.result+json"
# What a notebook measures on its machine, so that no two executions of it agree: places in its document.
MEASURED = (
    ".environment",
    ".evidence[budget.latency].value",
    ".evidence[budget.memory].value",
    ".evidence[health.champion_latency].value",
    ".evidence[health.predecessor_latency].value",
    *(f".evidence[budget.load.latency_p{percent}_ms]" for percent in (50, 90, 95, 99)),
    ".outputs.notified",
    ".outputs.measured",
    ".evidence[memory.service]",
    ".evidence[memory.volume]",
    *(
        f".evidence[load.{who}.latency_p{percent}_ms]"
        for who in ("champion", "challenger", "service")
        for percent in (50, 90, 95, 99)
    ),
)

ACTIONS: dict[Action, str] = {
    "keep": "Keep the champion.",
    "watch": "Keep the champion, and watch it.",
    "rollback": "Roll back to the predecessor.",
    "retrain": "Retrain.",
    "hold": "Hold: the input is broken.",
    "promote": "Promote the challenger.",
    "reject": "Reject the challenger.",
}
FINDINGS: dict[str, dict[Outcome, str]] = {
    "train": {
        "pass": "Yes: the challenger is worth judging.",
        "fail": "No: the simple rule does as well or better.",
        "inconclusive": "It cannot be told yet: the gain over the simple rule is within its error.",
        "error": "It cannot be told: the evidence is not usable.",
    },
    "score": {
        "pass": "Every row was scored by the champion.",
        "fail": "Scored, but not as promised: the simple rule answered where the model must not.",
        "inconclusive": "Scored; some checks could not be made.",
        "error": "Scored by the simple rule: the input could not be checked.",
    },
    "monitor": {
        "pass": "Yes: every sign that decides lies within its limit.",
        "fail": "No: a sign lies beyond its limit. Watch it; what to do is for rollback to say.",
        "inconclusive": "Nothing is known to be wrong, but not everything could be told.",
        "error": "It cannot be told: the evidence is not usable.",
    },
    "drift": {
        "pass": "Nothing has drifted that is both sure and large.",
        "fail": "The data has drifted: watch. Whether it matters is for rollback to say.",
        "inconclusive": "It cannot be told: there is too little data.",
        "error": "It cannot be told: the evidence is not usable.",
    },
    "stress": {
        "pass": "It survives all of it, within the limits.",
        "fail": "No: under this load, or with these faults, it does not do what was promised.",
        "inconclusive": "It cannot be told: not everything could be measured.",
        "error": "It cannot be told: something could not be tried at all.",
    },
}
