"""The ``prodkit`` command."""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from typing import Any

import click

from prodkit.commands.console import tell_failure
from prodkit.commands.models import models
from prodkit.commands.records import replay, report, verify, whatif
from prodkit.commands.service import serve
from prodkit.commands.work import backfill, lifecycle, run
from prodkit.errors import ParameterError, ProdkitError
from prodkit.runs.stops import leave, signal_received

# A command imports what it needs when it is called: help and a mistyped name are answered at once.

__all__ = ["main"]

# What the machine, not the package, is at fault for: no room, no permission, no such place.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}


def main() -> None:
    """Run the command; a wrong call ends with 2, a failure with 1, each with one clear sentence."""
    try:
        prodkit()
    except ProdkitError as error:
        tell_failure(f"prodkit: {error}")
        if signal_received():
            leave(signal_received())
        sys.exit(2 if isinstance(error, ParameterError) else 1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            place = f"{error.filename}: " if error.filename else ""
            fix = "Make room or give access there, or name another folder with --out."
            tell_failure(f"prodkit: {place}{error.strerror}. {fix}")
        else:  # a fault of the package: the whole story, for whoever mends it
            tell_failure("".join(traceback.format_exception(error)))
        sys.exit(1)


class _Command(click.Group):
    """A command that Ctrl-C ends as it would end any other program, not as a failure."""

    def invoke(self, context: click.Context) -> Any:
        """Run it."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            leave(signal.SIGINT)


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="notebook-prodkit")
def prodkit() -> None:
    """Take a scikit-learn model from experiment to production without leaving notebooks."""


for command in (backfill, lifecycle, models, replay, report, run, serve, verify, whatif):
    prodkit.add_command(command)
