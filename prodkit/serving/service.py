"""What the service may be told: names, types, units and bounds of its parameters, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field

from prodkit.errors import ParameterError
from prodkit.evidence import Window
from prodkit.params import GivenWindow, ProjectParams, SecretName
from prodkit.settings import REAL_STORE, expand, given_values

__all__ = ["ServeParams"]


class ServeParams(ProjectParams):
    """What ``prodkit serve`` may be told: the project facts, and its own limits."""

    notebook: ClassVar[str] = "serve"

    window: GivenWindow = Field(
        Window.parse("2013-04-01/2013-05-01"), description="what the models of a `demo` store are older than"
    )
    token: SecretName = Field(
        "", description="${NAME} of the bearer token that requests must carry; none if empty"
    )
    deadline_ms: float = Field(1000.0, gt=0, description="after which the next rung answers, milliseconds")
    slow_ms: float = Field(250.0, gt=0, description="what a call should not take, milliseconds")
    body_bytes: int = Field(
        4_194_304, ge=1, description="largest body, bytes; a larger one is refused with 413"
    )
    request_rows: int = Field(10_000, ge=1, description="most rows of a request; more are refused with 413")
    most_requests: int = Field(500, ge=1, description="requests on their way; more are refused with 503")
    most_connections: int = Field(
        1000, ge=8, description="connections at once; beyond that the one that has waited longest is closed"
    )
    poll_seconds: float = Field(1.0, gt=0, description="between two looks at the champion in the database")
    requests: str = Field(
        "outputs/requests", description="folder that receives the request log as Parquet; no log if empty"
    )
    log_rows: int = Field(
        50_000, ge=1, description="rows that wait to be written; more are lost, and counted"
    )
    log_seconds: float = Field(10.0, gt=0, description="between two files of the request log")
    drain_seconds: int = Field(30, ge=1, description="for requests on their way, after SIGTERM")

    @classmethod
    def read(cls, files: Sequence[Path], pairs: Sequence[tuple[str, str]]) -> Self:
        """The parameters from params files, later ones winning, and from ``-p NAME VALUE``, which win over all.

        A file named after a notebook says nothing to the service; ``serve.yaml`` is its own; of any other file it
        takes what it knows.

        Raises:
            ParameterError: a file that cannot be read, an unknown name, a wrong value.
        """
        kinds = {name: field.annotation for name, field in cls.model_fields.items()}
        given = given_values(cls.notebook, kinds, files=files, pairs=pairs)
        return cls.check({"store": REAL_STORE, **given})  # a service of the demonstration must be asked for

    @property
    def secret(self) -> bytes:
        """The bearer token, read from the environment now; empty if none is asked for."""
        secret = expand(self.token).encode()
        if self.token and not secret:
            raise ParameterError(self.token, rule="must not be empty", place="the environment", fix="Set it.")
        return secret
