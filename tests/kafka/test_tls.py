"""Until when real certificates are valid, in files of one and of several."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adawise.kafka.tls import CertificateFile, read_certificates, tls_context
from tests.kafka.certificates import Authority


def now() -> datetime:
    """A certificate is made of the moment, and a session of tests lasts for minutes."""
    return datetime.now(UTC)


def own(file: Path) -> CertificateFile:
    found = read_certificates("kafka.security.ssl_certificate", file, are_authorities=False)
    assert found is not None
    return found


def authorities(file: Path) -> CertificateFile:
    found = read_certificates("kafka.security.ssl_ca", file, are_authorities=True)
    assert found is not None
    return found


@pytest.mark.parametrize("days", [-1, 0.5, 30, 365 * 20, 365 * 24, 365 * 60, 365 * 500])
def test_it_is_known_when_a_certificate_ends_in_whatever_century(tmp_path: Path, days: float) -> None:
    pair = Authority(tmp_path, "ours").pair("worker", days=days)
    for file in (pair.certificate, pair.both):
        assert abs(own(file).begins - (now() - timedelta(days=2))) < timedelta(minutes=1)
        if file == pair.certificate:
            assert abs(own(file).ends - (now() + timedelta(days=days))) < timedelta(minutes=1)
    assert own(pair.certificate).is_over(now()) is (days < 0)
    if days > 0:
        tls_context({"ssl_certfile": str(pair.certificate), "ssl_keyfile": str(pair.key)})


@pytest.mark.parametrize(
    ("days", "soon"),
    [(0.9, True), (1.1, False), (29, False), (365, False)],  # issued two days ago
)
def test_soon_is_within_a_month_and_in_the_last_third_of_its_time(tmp_path: Path, days: float, soon: bool) -> None:
    assert own(Authority(tmp_path, "ours").pair("worker", days=days).certificate).ends_soon(now()) is soon


def test_a_year_s_certificate_ends_soon_a_month_before() -> None:
    begins = now()
    found = CertificateFile("a", Path("b"), begins, begins + timedelta(days=365))
    assert not found.ends_soon(begins + timedelta(days=334))
    assert found.ends_soon(begins + timedelta(days=336))
    assert not found.is_over(begins + timedelta(days=336))


def test_of_authorities_one_is_enough_and_of_a_chain_each_is_needed(tmp_path: Path) -> None:
    old, new = (Authority(tmp_path, name, days=days).certificate for name, days in (("old", -1), ("new", 30)))
    both = tmp_path / "both.pem"
    both.write_bytes(old.read_bytes() + new.read_bytes())
    assert authorities(both) == CertificateFile(
        "kafka.security.ssl_ca", both, authorities(new).begins, authorities(new).ends
    )
    assert own(both).ends == authorities(old).ends
    tls_context({"ssl_cafile": str(both)})


def test_what_is_not_understood_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("hello")
    cut = Authority(tmp_path, "ours").certificate.read_text()[:200] + "\n-----END CERTIFICATE-----"
    (tmp_path / "cut").write_text(cut)
    for name in ("notes", "cut", "gone", ""):
        assert read_certificates("kafka.security.ssl_ca", tmp_path / name, are_authorities=True) is None
