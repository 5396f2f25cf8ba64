"""The topics of ``prodkit help``: packaged Markdown, and the parameters of each notebook from their models."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from prodkit.errors import ParameterError
from prodkit.params import NOTEBOOKS, ProjectParams

__all__ = ["reference", "topics"]

_FOLDER = Path(__file__).parent / "help"


def topics() -> dict[str, str]:
    """Each topic, and what it is about."""
    titles = {
        path.stem: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        for path in sorted(_FOLDER.glob("*.md"))
    }
    return titles | {name: f"The parameters of {name}" for name in NOTEBOOKS}


def reference(topic: str = "") -> str:
    """The text of a topic as Markdown; without one, the list of all.

    Raises:
        ParameterError: there is no such topic.
    """
    known = topics()
    if not topic:
        lines = [f"- `prodkit help {name}`: {title}" for name, title in known.items()]
        return "\n".join(
            ["# prodkit help", "", *lines, "", "`prodkit COMMAND --help` has a command's options."]
        )
    if topic in NOTEBOOKS:
        return _parameters(topic)
    if topic not in known:
        close = difflib.get_close_matches(topic, known, n=1)
        fix = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known)}."
        raise ParameterError("TOPIC", rule="must be one that there is", value=topic, fix=fix)
    return (_FOLDER / f"{topic}.md").read_text(encoding="utf-8")


def _parameters(notebook: str) -> str:
    """The parameters of a notebook: its policy first, then the facts that all notebooks share."""
    fields = NOTEBOOKS[notebook].model_fields
    shared = [name for name in ProjectParams.model_fields if name not in ("window", "reference")]
    policy = [name for name in fields if name not in shared]
    lines = [f"# The parameters of {notebook}", "", "Give them with `-p NAME VALUE`, or in a file with `-f`."]
    for title, names in ((f"Policy, in params/{notebook}.yaml", policy), ("Facts, shared by all", shared)):
        lines += ["", f"## {title}", ""]
        for name in names:
            default = fields[name].get_default(call_default_factory=True)
            shown = "" if fields[name].is_required() else f" Default: `{_shown(notebook, name, default)}`."
            lines.append(f"- `{name}`: {fields[name].description}.{shown}")
    return "\n".join(lines)


def _shown(notebook: str, name: str, default: Any) -> str:
    """A default as a params file has it."""
    given: dict[str, Any] = {name: default}
    plain = (
        NOTEBOOKS[notebook].model_construct(**given).model_dump(mode="json", include={name}, warnings=False)
    )
    return json.dumps(plain[name], ensure_ascii=False)
