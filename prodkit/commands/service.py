"""``prodkit serve``: the champion behind HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from prodkit.commands.console import tell
from prodkit.commands.options import default_files, file_options, outputs_path
from prodkit.errors import ParameterError
from prodkit.settings import using_outputs

__all__ = ["serve"]


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any free one."
)
@file_options
def serve(host: str, port: int, files: Sequence[Path], pairs: Sequence[tuple[str, str]], out: Path) -> None:
    """Answer predictions over HTTP by whoever is champion; needs the extra [serve].

    Without -f it reads params/flights.yaml, and params/serve.yaml if it is there.
    """
    try:
        from prodkit.serving.app import serve as begin
    except ImportError as error:
        fix = 'Install it: pip install "notebook-prodkit[serve]".'
        raise ParameterError("serve", rule=f"needs another package ({error.name})", fix=fix) from error
    from prodkit.serving.service import ServeParams

    with using_outputs(outputs_path(out)):
        params = ServeParams.read(files or default_files("serve"), pairs)
        begin(
            params,
            host=host,
            port=port,
            tell=lambda address: tell(f"serving on {address}"),
        )
