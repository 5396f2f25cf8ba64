"""The messages of a kernel about one cell, and what the cell shows in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import nbformat

__all__ = ["outputs_of"]


def outputs_of(messages: Iterable[Mapping[str, Any]]) -> list[Any]:
    """What a cell shows in the end, from the messages of its kernel.

    Outputs that the cell has cleared or rewritten are what they became, and what goes into an ``Output`` widget is
    no output of the cell, just as the client that made the record has it.
    """
    outputs: list[Any] = []
    shown: dict[str, Any] = {}
    clear_next = captured = False
    for message in messages:
        kind, content = message["msg_type"], message["content"]
        if kind == "comm_msg" and "msg_id" in content.get("data", {}).get("state", {}):
            captured = bool(content["data"]["state"]["msg_id"])
        elif captured:
            continue
        elif kind == "clear_output":
            clear_next = bool(content.get("wait"))
            outputs = outputs if clear_next else []
        elif kind in ("stream", "display_data", "execute_result", "update_display_data", "error"):
            if clear_next:
                outputs, clear_next = [], False
            name = content.get("transient", {}).get("display_id")
            if kind == "update_display_data":
                if name in shown:
                    shown[name].update(data=content["data"], metadata=content["metadata"])
                continue
            outputs.append(nbformat.v4.output_from_msg(message))
            if name:
                shown[name] = outputs[-1]
    return outputs
