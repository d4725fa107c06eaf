"""TLS to a broker or an identity provider: loading of certificates, and explanations of a failed handshake.

An unusable file is reported with the name of its setting, before anything is sent. OpenSSL never gets a key with a
password without being given one: it would ask at the terminal.

The validity of certificates is read from their files: once one has expired, a broker or an identity provider says only
"expired".
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from adawise.errors import SettingsError
from adawise.store.files import read_bytes

_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_CA, _CERTIFICATE, _KEY, _PASSWORD = (
    f"kafka.security.{name}" for name in ("ssl_ca", "ssl_certificate", "ssl_key", "ssl_key_password")
)
_EXPIRED, _NOT_YET, _UNKNOWN = 10, 9, frozenset({2, 18, 19, 20, 21})  # OpenSSL's X509_V_ERR_...
_OTHER_NAME = frozenset({62, 64})


class _NoPassword(Exception):
    """Raised when the key has a password and none is set."""


def tls_context(security: Mapping[str, object]) -> ssl.SSLContext:
    """Return the context for kafka-python's arguments `ssl_cafile`, `ssl_certfile`, `ssl_keyfile` and `ssl_password`.

    Raises:
        SettingsError: a file is missing, cannot be read or is of another kind than the setting says; a key has another
            password; or a certificate has expired.
    """
    authority, certificate = _path(security, "ssl_cafile"), _path(security, "ssl_certfile")
    context = authorities(authority, _CA)
    if certificate is not None:
        key = _path(security, "ssl_keyfile")
        _load_own(context, certificate, key, security.get("ssl_password"))
    return context


def authorities(file: Path | None, setting: str) -> ssl.SSLContext:
    """Return a client's context that trusts what the file's certificates sign; None: the system's authorities.

    Raises:
        SettingsError: the file holds no certificate, or its last one has expired; `setting` is named in the message.
    """
    if file is None:
        return ssl.create_default_context()
    labels = _labels(file, setting)
    if "CERTIFICATE" not in labels:
        raise SettingsError(_wrong(setting, file, "certificates (PEM)", labels))
    found = read_certificates(setting, file, are_authorities=True)
    if found is not None and found.is_over(datetime.now(UTC)):  # OpenSSL would blame the broker's certificate
        raise SettingsError(
            f"{setting}: {file} expired at {found.until}, so certificates that it signed are rejected: name the "
            "authority's new certificate, or correct the clock of this machine"
        )
    try:
        return ssl.create_default_context(cafile=str(file))
    except ssl.SSLError as error:
        raise SettingsError(
            f"{setting}: {file}: expected certificates (PEM), but one is damaged ({_brief(error)}); copy the file again"
        ) from error


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path | None, password: object) -> None:
    labels = _labels(certificate, _CERTIFICATE)
    keys = labels if key is None else _labels(key, _KEY)
    if "CERTIFICATE" not in labels:
        swapped = key is not None and "CERTIFICATE" in keys
        raise SettingsError(_wrong(_CERTIFICATE, certificate, "a certificate (PEM)", labels, swapped=swapped))
    named, where = (_CERTIFICATE, certificate) if key is None else (_KEY, key)
    if not any("PRIVATE KEY" in label for label in keys):
        remedy = f"; or set {_KEY}" if key is None else ""
        raise SettingsError(_wrong(named, where, "a private key (PEM)", keys) + remedy)

    def passphrase() -> str:
        if not password:
            raise _NoPassword
        return str(password)

    try:
        context.load_cert_chain(certificate, key, passphrase)
    except _NoPassword:
        raise SettingsError(
            f"{named}: {where} has a password, but {_PASSWORD} is not set: set it, or remove the password from the "
            "key (`openssl pkey`)"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"it is not the key of the certificate {certificate}; give a matching pair"
        elif password:
            problem = f"it cannot be opened with {_PASSWORD} ({_brief(error)}); correct the password, or the file"
        else:
            problem = f"it is damaged, or of a kind that OpenSSL does not know ({_brief(error)}); create a new one"
        raise SettingsError(f"{named}: {where}: {problem}") from error
    found = read_certificates(_CERTIFICATE, certificate, are_authorities=False)
    if found is not None and found.is_over(datetime.now(UTC)):
        raise SettingsError(
            f"{_CERTIFICATE}: {certificate} expired at {found.until}, so no broker accepts it: renew it, or "
            "correct the clock of this machine"
        )


def refusal(error: BaseException, security: Mapping[str, object] | None = None) -> str | None:
    """Return why TLS failed and the remedy, if an error of kafka-python or urllib comes from that; else None.

    From the exchange, only a certificate error or an alert counts as a cause: a connection that ends within a handshake
    may have many causes.
    """
    found = next((each for each in _chain(error) if isinstance(each, ssl.SSLError)), None)
    if isinstance(found, ssl.SSLCertVerificationError):
        return _not_believed(found)
    if found is None and "CERTIFICATE_VERIFY_FAILED" in str(error):  # passed on as text alone
        return f"the broker's certificate is not trusted ({error}): check the certificate, or {_CA}"
    reason = (found.reason if found is not None else None) or ""
    if "ALERT" not in reason:
        return None
    alert = reason.partition("ALERT_")[2].lower().replace("_", " ")
    own = (security or {}).get("ssl_certfile")
    if alert in {"protocol version", "handshake failure", "insufficient security"}:
        return f"broker and machine have no TLS version or cipher in common ({alert}): update one of them"
    if own is None:
        return (
            f"the broker requires a client certificate ({alert}): set {_CERTIFICATE} and {_KEY}, or use a listener "
            "with ssl.client.auth=none"
        )
    return (
        f"the broker rejects the certificate {own} ({alert}): it must be a client certificate from an authority in "
        "the broker's truststore, not expired and not revoked"
    )


def _not_believed(error: ssl.SSLCertVerificationError) -> str:
    code, reason = error.verify_code, error.verify_message
    if code == _EXPIRED:
        return f"the broker's certificate has expired ({reason}): renew it, or correct the clock of this machine"
    if code == _NOT_YET:
        return (
            f"the broker's certificate is not valid yet ({reason}): correct the clock of this machine or of the broker"
        )
    if code in _OTHER_NAME:
        return (
            f"the broker's certificate is for another name ({reason.rstrip('.')}): connect by a name in its "
            "certificate (kafka.bootstrap_servers, and the broker's advertised.listeners), or give it a "
            "certificate for this name"
        )
    if code in _UNKNOWN:
        return (
            f"the broker's certificate is signed by an untrusted authority ({reason}): set {_CA} to the certificate "
            "of the authority that signed it"
        )
    return f"the broker's certificate is not trusted ({reason}): check the certificate, or {_CA}"


def _chain(error: BaseException | None) -> Iterator[object]:
    """Yield the error and all its causes, by any of the ways in which libraries link them."""
    visited: list[object] = []
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and each not in visited:
            visited.append(each)
            waiting += [each.__cause__, each.__context__, *each.args, getattr(each, "reason", None)]
    yield from visited


def _path(security: Mapping[str, object], name: str) -> Path | None:
    found: Any = security.get(name)
    return None if found is None else Path(found)


def _labels(file: Path, setting: str) -> list[str]:
    """Return the labels of the parts of a PEM file; [] for any other file."""
    try:
        return [label.decode() for label in _LABEL.findall(read_bytes(file))]
    except FileNotFoundError:
        raise SettingsError(f"{setting}: {file}: there is no such file; correct the path") from None
    except OSError as error:
        raise SettingsError(
            f"{setting}: {file}: it cannot be read: {error.strerror}; correct the path or its permissions"
        ) from error


def _wrong(setting: str, file: Path, wanted: str, labels: list[str], *, swapped: bool = False) -> str:
    held = " and ".join(dict.fromkeys(label.lower() for label in labels))
    has = f"it has {held}" if held else "it is not PEM (`openssl x509 -inform der` and `openssl pkcs12` convert to it)"
    remedy = f"; swap it with {_KEY}" if swapped else "" if not held else "; name the other file"
    return f"{setting}: {file}: expected {wanted}, but {has}{remedy}"


def _brief(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


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
