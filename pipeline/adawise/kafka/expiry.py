"""Until when certificates in files are valid. A broker, or whoever gives tokens, says no more than "expired" then."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from adawise.files import read_bytes

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_TIMES = re.compile(rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)" * 2)  # of a certificate's validity (X.509, 4.1.2.5)
_SOON = timedelta(days=30)
_LEFT = 1 / 3  # of the time for which it was issued: one of a day is not always nearly over


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """A file that a setting names, by the certificate with whose end it is of no more use."""

    setting: str
    file: Path
    begins: datetime
    ends: datetime

    def is_over(self, now: datetime) -> bool:
        """Whether it has ended."""
        return self.ends < now

    def ends_soon(self, now: datetime) -> bool:
        """Within a month, and in the last third of its time."""
        left = self.ends - now
        return left < min(_SOON, _LEFT * (self.ends - self.begins))

    @property
    def until(self) -> str:
        """The moment, as messages have it."""
        return f"{self.ends:%Y-%m-%dT%H:%M:%SZ}"


def read_certificates(setting: str, file: Path, *, are_authorities: bool) -> CertificateFile | None:
    """What a PEM file of certificates comes to; None if none of them is understood, or it cannot be read.

    Of authorities, one is enough: a new one is put beside the old one before that ends. Of a chain of one's own, each
    is needed.
    """
    try:
        found = [times for block in _BLOCK.findall(read_bytes(file)) if (times := _validity(block)) is not None]
    except OSError:  # whoever opens it for TLS says so
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
    """Of UTCTime, whose years are 1950 to 2049, or of GeneralizedTime."""
    text = (long or b"%s%s" % (b"19" if short and short >= b"50" else b"20", short or b"")).decode("ascii")
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
