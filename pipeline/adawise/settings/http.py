"""The settings of the worker's HTTP port: probes, metrics and the live page."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from typing_extensions import override

from adawise.settings.group import Group, Text

PORT = 8642
_LEAST_TOKEN = 16

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


def _listen(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        if value != "localhost":
            raise ValueError("it is not an address of this machine") from None
        return value


def host_names(value: str) -> str:
    """Return host names and addresses, separated by commas, in lower case and without spaces.

    Raises:
        ValueError: one of them is no host name and no address.
    """
    names = [name.strip().lower() for name in value.split(",")]
    for name in names:
        if not _HOST.fullmatch(name) and not _is_address(name):
            raise ValueError(f"{name!r} is not a host name")
    return ",".join(names)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class HttpSettings(Group):
    """The settings `[http]`: one port for probes, metrics and the live page."""

    enabled: bool = Field(
        default=True, description="serve /livez, /readyz, /startupz, /metrics, and the live page at /"
    )
    listen: Annotated[Text, AfterValidator(_listen)] = Field(
        default="127.0.0.1",
        description="address to listen on; if others can reach it (0.0.0.0 and :: are all addresses), the page "
        "needs http.token",
        json_schema_extra={"expected": "an IP address of this machine, or localhost", "metavar": "ADDRESS"},
    )
    port: Annotated[int, Field(ge=0, le=65_535)] | None = Field(
        default=None,
        description=f"port to listen on; 0: any free one; none: {PORT}, or a free one near it",
    )
    probes_port: Annotated[int, Field(ge=0, le=65_535)] | None = Field(
        default=None,
        description="separate port for the probes, so that clients of http.port cannot exhaust it; 0: any free "
        "one; none: probes are at http.port only",
    )
    token: SecretStr | None = Field(
        default=None, description="secret for the page (its login form) and /metrics (bearer token); probes need none"
    )
    hosts: Annotated[str, AfterValidator(host_names)] | None = Field(
        default=None,
        description="host names under which the port is reached, besides localhost and addresses",
        json_schema_extra={"expected": "host names separated by commas", "metavar": "NAME,NAME"},
    )
    max_streams: int = Field(
        default=100,
        ge=0,
        le=100_000,
        description="streams that have series of their own in /metrics, those with most images first; 0: none",
    )
    max_cameras: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="most cameras on the page; beyond that, the one last seen longest ago is removed",
    )
    silent_after_s: float = Field(
        default=60.0, ge=1, le=1e9, description="seconds without an image after which a camera counts as silent"
    )
    stuck_after_s: float = Field(
        default=600.0,
        ge=10,
        le=86_400,
        description="seconds without a step or an event of the worker's loop after which /livez asks for a restart",
    )
    thumbnails: bool = Field(
        default=False, description="keep the last image of each camera in memory and show a small copy on the page"
    )

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach the port."""
        return self.listen == "localhost" or ipaddress.ip_address(self.listen).is_loopback

    @override
    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield a mistake for a token that is too short, and for a port that is given twice. See `Group`."""
        if self.probes_port and self.probes_port == self.port:
            yield "probes_port", "it is http.port; set another port, or none, since probes are at http.port too"
        if self.token is not None and len(self.token.get_secret_value()) < _LEAST_TOKEN:
            yield "token", f"it has fewer than {_LEAST_TOKEN} characters; make one with `openssl rand -hex 32`"
