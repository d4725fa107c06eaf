"""The validity of certificates in files: once one has expired, a broker or an identity provider says only "expired"."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from adawise.store.files import read_bytes

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_TIMES = re.compile(rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)" * 2)  # a certificate's validity (RFC 5280, 4.1.2.5)
_SOON = timedelta(days=30)
_LEFT = 1 / 3  # of the validity: a certificate issued for a day is not always about to expire


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """A file that a setting names, with the validity of the certificate whose end makes it useless."""

    setting: str
    file: Path
    begins: datetime
    ends: datetime

    def is_over(self, now: datetime) -> bool:
        """Return True if it has expired."""
        return self.ends < now

    def ends_soon(self, now: datetime) -> bool:
        """Return True if it ends within a month, and is in the last third of its validity."""
        left = self.ends - now
        return left < min(_SOON, _LEFT * (self.ends - self.begins))

    @property
    def until(self) -> str:
        """The end of the validity, as messages have it."""
        return f"{self.ends:%Y-%m-%dT%H:%M:%SZ}"


def read_certificates(setting: str, file: Path, *, are_authorities: bool) -> CertificateFile | None:
    """Return the validity of a PEM file of certificates; None if it cannot be read, or none in it is understood.

    Of authorities, one valid certificate is enough, as a new one is added before the old one ends: the latest end
    counts. Of the client's own chain, each certificate is needed: the earliest end counts.
    """
    try:
        found = [times for block in _BLOCK.findall(read_bytes(file)) if (times := _validity(block)) is not None]
    except OSError:  # opening it for TLS reports the error
        return None
    if not found:
        return None
    begins, ends = (max if are_authorities else min)(found, key=lambda times: times[1])
    return CertificateFile(setting, file, begins, ends)


def _validity(block: bytes) -> tuple[datetime, datetime] | None:
    try:
        times = _TIMES.search(ssl.PEM_cert_to_DER_cert(block.decode("ascii")))
        return None if times is None else (_moment(times[1], times[2]), _moment(times[3], times[4]))
    except ValueError:
        return None


def _moment(short: bytes | None, long: bytes | None) -> datetime:
    """Parse UTCTime, whose years are 1950 to 2049, or GeneralizedTime."""
    text = (long or b"%s%s" % (b"19" if short and short >= b"50" else b"20", short or b"")).decode("ascii")
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
