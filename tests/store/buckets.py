"""A bucket as Google Cloud Storage and Azure serve one to `obstore`: the few requests that the store makes, over HTTP.

S3 has `moto`; of the other two no fake that Python can install speaks what `obstore` sends.
"""

from __future__ import annotations

import re
import threading
from contextlib import AbstractContextManager
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.loopback import Answering, Server, serving

ACCOUNT = "devstoreaccount1"  # what Azure's emulator is called; with it `obstore` knows the key
_WHEN = "Wed, 25 Nov 2026 10:00:00 GMT"
_PAGE = 400  # names in one answer


class Buckets(Server):
    """Holds `objects` by "bucket/key". `refuses_with` is the status when a key exists: Azure has two of them."""

    def __init__(self, *, refuses_with: int) -> None:
        super().__init__(_Request)
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self.refuses_with = refuses_with


def buckets(*, refuses_with: int = 412) -> AbstractContextManager[Buckets]:
    """A server in a thread."""
    return serving(Buckets(refuses_with=refuses_with))


class _Request(Answering):
    server: Buckets

    def put(self) -> None:
        data = self.body()
        once = self.headers.get("if-none-match") == "*" or self.headers.get("x-goog-if-generation-match") == "0"
        with self.server.lock:
            refused = once and self._key in self.server.objects
            if not refused:
                self.server.objects[self._key] = data
        self._answer(self.server.refuses_with if refused else 201)

    def get(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        if query:
            self._list(query)
        elif (data := self.server.objects.get(self._key)) is None:
            self._answer(404)
        elif requested := self.headers.get("range"):
            first, last = (int(number) for number in requested.removeprefix("bytes=").split("-"))
            part = data[first : last + 1]
            self._answer(206, part, content_range=f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        else:
            self._answer(200, data)

    def delete(self) -> None:
        with self.server.lock:
            found = self.server.objects.pop(self._key, None)
        self._answer(404 if found is None else 202)

    def post(self) -> None:
        """Azure's batch of deletions: requests within a request, answers within an answer."""
        batch = self.body().decode()
        parts = []
        for number, path in enumerate(re.findall(r"^DELETE (\S+)", batch, re.MULTILINE)):
            with self.server.lock:
                found = self.server.objects.pop(unquote(urlsplit(path).path).removeprefix(f"/{ACCOUNT}/"), None)
            status = "404 The specified blob does not exist." if found is None else "202 Accepted"
            parts.append(
                f"--answers\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
                f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"
            )
        self._answer(202, f"{''.join(parts)}--answers--\r\n".encode(), "multipart/mixed; boundary=answers")

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{ACCOUNT}").removeprefix("/")

    def _list(self, query: dict[str, str]) -> None:
        """A page of names, after the one that the last page ended with."""
        bucket, azure = f"{self._key}/", query.get("comp") == "list"
        last = query.get("marker" if azure else "continuation-token") or query.get("start-after", "")
        with self.server.lock:
            objects = self.server.objects.items()
            sizes = {key.removeprefix(bucket): len(data) for key, data in objects if key.startswith(bucket)}
        names = sorted(name for name in sizes if name.startswith(query.get("prefix", "")) and name > last)
        page, more = names[:_PAGE], len(names) > _PAGE
        after = page[-1] if more else ""
        if azure:
            entries = "".join(
                f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{_WHEN}</Last-Modified>"
                f"<Content-Length>{sizes[name]}</Content-Length><Content-Type>x/y</Content-Type><Etag>1</Etag></Properties></Blob>"
                for name in page
            )
            body = f"<EnumerationResults><Blobs>{entries}</Blobs><NextMarker>{after}</NextMarker></EnumerationResults>"
        else:
            entries = "".join(
                f"<Contents><Key>{escape(name)}</Key><LastModified>2026-11-25T10:00:00Z</LastModified>"
                f'<ETag>"1"</ETag><Size>{sizes[name]}</Size></Contents>'
                for name in page
            )
            token = f"<NextContinuationToken>{after}</NextContinuationToken>" if more else ""
            body = f"<ListBucketResult>{entries}{token}</ListBucketResult>"
        self._answer(200, body.encode())

    def _answer(
        self, status: int, body: bytes = b"", kind: str = "application/xml", *, content_range: str | None = None
    ) -> None:
        part = {} if content_range is None else {"content_range": content_range}
        self.answer(status, body, etag='"1"', last_modified=_WHEN, content_type=kind, **part)
