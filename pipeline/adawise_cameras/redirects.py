"""Redirects of a camera's server: allowed to its own host, and to the hosts that the camera's table lists.

Otherwise a server could have us send requests to hosts that only we can reach, such as a cloud's metadata address, or
have FFmpeg give the camera's password to another host.

- RTSP: FFmpeg follows a redirect with the password, and has no option against it. It logs the target just before it
  connects; if that is not allowed, it gets no socket.
- HTTP: FFmpeg follows no redirect (`max_redirects` is 0). They are followed here, before it opens the stream.
- Playlists: FFmpeg takes no `max_redirects` for what they name, so playlists and their segments are fetched here.
"""

from __future__ import annotations

import logging
import re
import resource
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import IO
from urllib.error import HTTPError
from urllib.parse import unquote, urljoin
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPDigestAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
    build_opener,
)

import av.logging
from typing_extensions import override

from adawise.produce.address import masked, may_lead, parts_of, scheme_of

_MOST = 8
_CODES = (301, 302, 303, 307, 308)
_REDIRECTING = re.compile(r"Status \d+: Redirecting to (.*)")
_BEGINNING = 4_096  # bytes of a playlist that show what it is
_PLAYLISTS: Mapping[bytes, str] = {b"#EXTM3U": "hls"}
_LONGEST = 1_000  # characters of FFmpeg's line: PyAV cuts it at 1,023, but FFmpeg connects to the whole address


class LedAway(Exception):
    """Raised when a server redirects to where it must not. The text ends in the remedy."""


class Redirects:
    """The redirects that a reader may follow for one camera.

    Args:
        source: the camera's own address.
        hosts: other hosts that it may redirect to, in lower case.
        timeout_s: of each answer.
    """

    def __init__(self, source: str, hosts: Collection[str], timeout_s: float) -> None:
        self._source, self._hosts, self._timeout_s = source, hosts, timeout_s

    def check(self, url: str) -> None:
        """Raise LedAway unless the camera may redirect there."""
        if may_lead(self._source, url, self._hosts):
            return
        if scheme_of(url) not in ("rtsp", "rtsps", "http", "https"):
            raise LedAway(f"it leads to a URL that may not be opened: {masked(url)[:200]}. Correct the URL.")
        raise LedAway(
            f"it redirects to another host or to an unencrypted URL: {masked(url)[:200]}. If that is right, name "
            "the host in the camera's `hosts`, or set `url` to that URL."
        )

    # -- RTSP

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch RTSP redirects: after a forbidden one, FFmpeg can open nothing more, and LedAway is raised."""
        watch = _RedirectLog(self.check)
        logger = logging.getLogger("libav")
        level, propagates = logger.level, logger.propagate
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(watch)
        av.logging.set_level(av.logging.INFO)
        try:
            yield
        except Exception:
            if watch.led_away is not None:
                raise watch.led_away from None
            raise
        finally:
            av.logging.set_level(None)
            logger.removeHandler(watch)
            logger.propagate = propagates
            logger.setLevel(level)
            watch.restore()

    # -- HTTP

    def followed(self, url: str) -> str:
        """Return the URL at the end of an HTTP server's redirects; raise LedAway or OSError."""
        end, answer = self._end_of(url, {})
        answer.close()
        return end  # after an error, too: FFmpeg reports what is wrong with it

    def playlist(self, url: str) -> str | None:
        """Return FFmpeg's name of the format if it is a playlist, else None; raise LedAway or OSError."""
        with self._answer(url, {}) as answer:
            beginning = answer.read(_BEGINNING)
        return next((name for mark, name in _PLAYLISTS.items() if mark in beginning), None)

    def open(self, url: str, flags: int, options: Mapping[str, str]) -> object:
        """Open what a playlist names, as `av.open` calls it; raise LedAway or OSError."""
        del flags  # nothing is written
        if scheme_of(url).startswith("crypto"):
            raise LedAway("its playlist is encrypted, which is not supported. Have the camera send it unencrypted.")
        last = f"{int(end) - 1}" if (end := options.get("end_offset")) else ""
        first = options.get("offset", "0")
        return _Body(self._answer(url, {"Range": f"bytes={int(first)}-{last}"} if last or first != "0" else {}))

    def _answer(self, url: str, headers: Mapping[str, str]) -> IO[bytes]:
        """Return the server's answer at the end of its redirects."""
        end, answer = self._end_of(url, headers)
        if isinstance(answer, HTTPError):
            answer.close()
            raise OSError(f"{masked(end)}: the server answers {answer.code}") from answer
        return answer

    def _end_of(self, url: str, headers: Mapping[str, str]) -> tuple[str, IO[bytes] | HTTPError]:
        """Follow redirects; return the last URL, with the answer or the error there."""
        for _ in range(_MOST):
            try:
                return url, self._request(url, headers)
            except HTTPError as error:
                location = error.headers.get("Location")
                if error.code not in _CODES or not location:
                    return url, error
                error.close()
                url = self._led(url, location)
        raise LedAway(f"it redirected more than {_MOST} times. Correct the URL.")

    def _led(self, url: str, location: str) -> str:
        here, target = parts_of(url), urljoin(parts_of(url).clean, location)
        self.check(target)
        there = parts_of(target)
        is_same = there.host == here.host and not there.user
        return there.with_user(here.user) if is_same else target

    def _request(self, url: str, headers: Mapping[str, str]) -> IO[bytes]:
        """Return one answer without following redirects. The host that is asked is the one that was checked."""
        self.check(url)
        parts = parts_of(url)
        answer: IO[bytes] = _opener(parts.clean, parts.user).open(
            Request(parts.clean, headers=dict(headers)), timeout=self._timeout_s
        )
        return answer


def _opener(url: str, user: str) -> OpenerDirector:
    passwords = HTTPPasswordMgrWithDefaultRealm()
    if user:
        name, _, password = user.partition(":")
        passwords.add_password(None, url, unquote(name), unquote(password))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # as FFmpeg: cameras sign their own certificates
    return build_opener(
        _NotFollowed, HTTPBasicAuthHandler(passwords), HTTPDigestAuthHandler(passwords), HTTPSHandler(context=context)
    )


class _NotFollowed(HTTPRedirectHandler):
    @override
    def redirect_request(self, *_: object) -> None:
        return None


class _Body:
    """An answer that FFmpeg reads from beginning to end. It has no `seek`, which FFmpeg would use."""

    def __init__(self, answer: IO[bytes]) -> None:
        self._answer = answer

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; b"" at the end."""
        return self._answer.read(size)

    def close(self) -> None:
        """Close the connection."""
        self._answer.close()


class _RedirectLog(logging.Handler):
    """A log handler that takes away FFmpeg's sockets when a redirect is not allowed."""

    def __init__(self, check: Callable[[str], None]) -> None:
        super().__init__()
        self._check = check
        self._limits: tuple[int, int] | None = None
        self.led_away: LedAway | None = None

    @override
    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        match = _REDIRECTING.search(message)
        if match is None or self.led_away is not None:
            return
        try:
            if len(message) >= _LONGEST:
                raise LedAway(f"it redirects to a URL of more than {_LONGEST} characters, which was cut off")
            self._check(match[1])
        except LedAway as led_away:
            self.led_away = led_away
            # An exception would get lost in FFmpeg, which connects next. So the system refuses it a socket.
            self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, self._limits[1]))

    def restore(self) -> None:
        """Lift the limit on files and sockets."""
        if self._limits is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
