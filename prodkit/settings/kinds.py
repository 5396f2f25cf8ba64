"""The kinds of values that parameters have: how each is read from text, checked, and written."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from prodkit.spans import Window, iso, parse_duration, write_duration

__all__ = [
    "Addresses",
    "Duration",
    "GivenWindow",
    "Moment",
    "OptionalTask",
    "Reference",
    "SecretName",
    "Share",
    "Task",
    "rising",
]

Task = Literal["binary", "multiclass", "regression"]
Like = Literal["weekday", "month"]


def _from_text(parse: Any) -> BeforeValidator:
    """Let a field be given as text, with the empty text meaning "not given"."""
    return BeforeValidator(
        lambda given: (parse(given) if given else None) if isinstance(given, str) else given
    )


def _fraction(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, found {share}")
    return share


def _by_reference(addresses: list[str]) -> list[str]:
    for address in addresses:
        if not _REFERENCE.search(address):
            # the address itself is a secret, so it is not repeated
            raise ValueError("an address is read from the environment: write ${NAME}, and export NAME=...")
    return addresses


_REFERENCE = re.compile(r"\$\{\w+\}")


def _reference(text: str) -> str:
    if text and not re.fullmatch(r"\$\{\w+\}", text):
        raise ValueError("a secret is written as ${NAME} and read from the environment")
    return text


def rising(numbers: list[Any]) -> list[Any]:
    """The numbers, if each is above the one before, and all above 0; ValueError otherwise."""
    if not numbers or min(numbers) <= 0 or sorted(set(numbers)) != numbers:
        raise ValueError("it must hold numbers above 0, each above the one before")
    return numbers


Reference = Annotated[
    Window | Like | None,
    _from_text(lambda text: text if text in get_args(Like) else Window.parse(text)),
    PlainSerializer(lambda given: "" if given is None else str(given)),
]
GivenWindow = Annotated[Window, _from_text(Window.parse), PlainSerializer(str)]
Moment = Annotated[
    datetime | None,
    _from_text(datetime.fromisoformat),
    PlainSerializer(lambda moment: "" if moment is None else iso(moment)),
]
Duration = Annotated[timedelta, _from_text(parse_duration), PlainSerializer(write_duration)]
Share = Annotated[float, AfterValidator(_fraction)]
Addresses = Annotated[list[str], AfterValidator(_by_reference)]
SecretName = Annotated[str, AfterValidator(_reference)]
OptionalTask = Annotated[
    Task | None, BeforeValidator(lambda given: given or None), PlainSerializer(lambda t: t or "")
]
