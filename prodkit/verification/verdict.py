"""What verifying a run has come to, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prodkit.verification.likeness import Difference

__all__ = ["Verdict"]


@dataclass
class Verdict:
    """What verifying a run has come to.

    Attributes:
        run_id: which run.
        differences: what is not as recorded: in the record itself or, if it holds together, in the second execution.
        refused: why it could not be executed again, if it could not; then nothing is said about its outputs.
        notes: what explains a difference, or is worth knowing without one.
        compared: how many cells were executed, how many of them say that they cannot repeat, how many outputs
            and figures were held against the record.
    """

    run_id: str
    differences: list[Difference] = field(default_factory=list)
    refused: str = ""
    notes: list[str] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def matches(self) -> bool:
        """Whether all of it is as recorded."""
        return not self.differences and not self.refused

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON has it."""
        listed = [each._asdict() for each in self.differences]
        return {"run_id": self.run_id, "matches": self.matches, **vars(self), "differences": listed}

    def lines(self, *, most: int = 20) -> list[str]:
        """The verdict for people; no more than so many differences."""
        if self.refused:
            return [f"{self.run_id}: cannot be verified", f"  {self.refused}", *self._notes()]
        said = "matches" if self.matches else "does not match"
        lines = [f"{self.run_id}: {said}"]
        for each in self.differences[:most]:
            lines += [f"  {each.what}", f"    recorded: {each.recorded}", f"    found:    {each.found}"]
        if len(self.differences) > most:
            lines.append(f"  and {len(self.differences) - most} more")
        if self.compared:
            lines.append(
                "  {cells} cells executed in a cold kernel in {seconds:.0f} s; {outputs} outputs compared, {figures} "
                "of them figures; {ignored} cells say that their outputs cannot repeat".format(
                    **self.compared, seconds=self.seconds
                )
            )
        elif not self.matches:
            lines.append("  The record contradicts itself, so it was not executed again.")
        return [*lines, *self._notes()]

    def _notes(self) -> list[str]:
        return [f"  note: {note}" for note in self.notes]
