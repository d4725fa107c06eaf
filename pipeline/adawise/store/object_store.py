"""The store on S3, Google Cloud Storage, Azure and compatible services, through `obstore` (extra `s3`).

`create` is one conditional request (`If-None-Match: *`, for Google `x-goog-if-generation-match: 0`). A request whose
answer was lost may have succeeded, and is sent again. The AlreadyExists that may follow is resolved by the chain, by
the attempt that the object carries. obstore's own retries are off: they would hide which answer is a second one, and
could last for minutes while the worker's main thread waits.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import structlog
from typing_extensions import override

from adawise.errors import SettingsError, StoreUnavailable
from adawise.store.answers import AlreadyExists, brief, code_of, is_absent, translated

try:
    import obstore
    import obstore.store
    import stamina
    from obstore import exceptions
    from stamina.instrumentation import RetryDetails, set_on_retry_hooks
except ImportError as error:
    raise SettingsError(
        f"a URL such as s3://bucket/prefix needs the package {error.name}; install it with: pip install 'adawise[s3]'"
    ) from error

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

    from adawise.store.shared_files import SharedFiles

T = TypeVar("T")

_PAGE = 1_000  # keys that one request lists

ATTEMPTS = 4
"""Tries of one request before StoreUnavailable; the worker's own retries follow, with its partition paused."""

CONNECT_S, REQUEST_S, RETRY_S = 3, 15, 15
"""Seconds: to connect; for one request with its answer; after which no further try begins.

So a store that refuses is known to be down after about 2 s, one that never answers after 15 to 30 s: well below Kafka's
`max.poll.interval.ms`. A segment of 64 MiB needs 4.5 MB/s. On a slower link raise `AWS_TIMEOUT` (or `GOOGLE_TIMEOUT`,
`AZURE_TIMEOUT`), for example to "60s"; it takes precedence over `REQUEST_S`, as `..._CONNECT_TIMEOUT` does over
`CONNECT_S`.
"""

_PROVIDERS = {"s3": "AWS", "s3a": "AWS", "gs": "GOOGLE", **dict.fromkeys(("az", "abfs", "abfss"), "AZURE")}
_ENDPOINTS = ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
# The options of `obstore`'s HTTP client: if some are given, it no longer reads the environment for the others.
_CLIENT_OPTIONS = (
    *("allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type", "http1_only"),
    *("http2_keep_alive_interval", "http2_keep_alive_timeout", "http2_keep_alive_while_idle", "http2_only"),
    *("pool_idle_timeout", "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes", "proxy_url"),
    *("randomize_addresses", "read_timeout", "root_certificate", "timeout", "user_agent"),
)
_BLOCK_BYTES = 1 << 18  # read at once, or as much as is asked for


def open_url(url: str) -> ObjectStore:
    """Open the store of a URL; keys, region and endpoint come from the provider's usual environment variables.

    Raises:
        SettingsError: the URL names no store, or the environment contains a wrong endpoint.
    """
    if url.startswith("memory://"):
        return ObjectStore(obstore.store.MemoryStore(), url=url)
    try:
        options = _client_options(_PROVIDERS[url.partition("://")[0]], os.environ)
        store = obstore.store.from_url(url, retry_config={"max_retries": 0}, client_options=options)
    except (exceptions.BaseError, KeyError, ValueError, TypeError) as error:
        why = "its scheme is not one of these" if isinstance(error, KeyError) else brief(error)
        raise SettingsError(
            f"sink.root: expected a folder or a URL as s3://bucket/prefix, gs://... or az://..., but {url}: {why}; "
            "correct it"
        ) from error
    return ObjectStore(store, url=url)


def file_system(url: str) -> SharedFiles:
    """Return the stores of the URL's scheme as a file system, for Arrow and DuckDB, which read parts of files.

    Raises:
        SettingsError: as `open_url`.
    """
    # Imported here, because fsspec takes a fifth of a second, and a worker needs none.
    from adawise.store.shared_files import SharedFiles

    scheme = url.partition("://")[0]
    open_url(url)  # for its errors: those of fsspec would not name the fault
    options = _client_options(_PROVIDERS[scheme], os.environ)
    retries: RetryConfig = {"max_retries": ATTEMPTS - 1, "retry_timeout": timedelta(seconds=RETRY_S)}
    return SharedFiles(scheme, client_options=options, retry_config=retries)


def _client_options(provider: str, environment: Mapping[str, str]) -> ClientConfig:
    """Return our time-outs, and the environment's options of the HTTP client.

    Raises:
        SettingsError: an endpoint is no URL, or is not encrypted without explicit permission.
    """
    options = {"connect_timeout": f"{CONNECT_S}s", "timeout": f"{REQUEST_S}s"}
    named = {option: environment.get(f"{provider}_{option.upper()}") for option in _CLIENT_OPTIONS}
    options |= {option: value for option, value in named.items() if value}
    for name in _ENDPOINTS:
        endpoint = environment.get(name, "") if name.startswith(provider) else ""
        # An endpoint without a scheme would make the client end the process; to one in clear text without permission it
        # would never send a request.
        if endpoint and not re.match(r"https?://[^/]", endpoint):
            raise SettingsError(f"{name}: expected a URL as https://host:port, but it is {endpoint!r}; correct it")
        if endpoint.startswith("http://") and options.get("allow_http", "").lower() not in {"1", "true", "on", "yes"}:
            raise SettingsError(
                f"{name}: expected https://, but it is {endpoint}; for one in clear text set {provider}_ALLOW_HTTP=true"
            )
    return options  # type: ignore[return-value]  # values as text, as in the environment


def _log_retry(details: RetryDetails) -> None:
    """Log a retry. It replaces stamina's own event, which names the call but not the store."""
    log = structlog.get_logger("store")
    log.warning(
        "store_retried", error=str(details.caused_by), tries=details.retry_num, wait_s=round(details.wait_for, 1)
    )


set_on_retry_hooks([_log_retry])


class ObjectStore:
    """A bucket, or a prefix of one; `url` is its name in messages."""

    def __init__(self, store: obstore.store.ObjectStore, *, url: str, attempts: int = ATTEMPTS) -> None:
        self._store = store
        self._url = url
        self._attempts = attempts

    @override
    def __str__(self) -> str:
        return self._url

    def create(self, key: str, data: bytes) -> None:
        """See `Store.create`."""

        def create() -> None:
            try:
                obstore.put(self._store, key, data, mode="create", use_multipart=False)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:  # Azure raises either
                # S3: two writers create it now, and perhaps neither succeeds
                if code_of(error) == "ConditionalRequestConflict":
                    raise
                raise AlreadyExists(key) from None

        self._request(key, create)

    def put(self, key: str, data: bytes) -> None:
        """See `Store.put`."""
        # In one part: an interrupted multipart upload leaves parts that are invisible and cost money.
        self._request(key, lambda: obstore.put(self._store, key, data, use_multipart=False))

    def get(self, key: str) -> bytes | None:
        """See `Store.get`."""
        return self._request(key, lambda: _unless_absent(lambda: bytes(obstore.get(self._store, key).bytes())))

    def open(self, key: str) -> BinaryIO | None:
        """See `Store.open`. The file requests blocks as it is read."""

        def begin() -> tuple[int, bytes]:
            found = obstore.get(self._store, key, options={"range": (0, _BLOCK_BYTES)})
            return int(found.meta["size"]), bytes(found.bytes())

        begun = self._request(key, lambda: _unless_absent(begin))
        return None if begun is None else io.BufferedReader(_Object(self, key, *begun), _BLOCK_BYTES)

    def range_of(self, key: str, first: int, until: int) -> bytes:
        """Return the bytes [first, until) of `key`. Raises FileNotFoundError if it was removed."""
        data = self._request(
            key, lambda: _unless_absent(lambda: bytes(obstore.get_range(self._store, key, start=first, end=until)))
        )
        if data is None:
            raise FileNotFoundError(f"{self._url}: {key}")
        return data

    def list(self, prefix: str) -> list[str]:
        """See `Store.list`."""
        return list(self.sizes(prefix))

    def sizes(self, prefix: str) -> Mapping[str, int]:
        """See `Store.sizes`."""

        def entries() -> dict[str, int]:
            pages = obstore.list(self._store, prefix.removesuffix("/") or None, chunk_size=_PAGE)
            return dict(sorted((str(entry["path"]), int(entry["size"])) for page in pages for entry in page))

        return self._request(prefix, entries)

    def page(self, folder: str, after: str = "") -> tuple[Sequence[str], bool]:
        """See `Store.page`."""
        before = folder.removesuffix("/")

        def keys() -> tuple[Sequence[str], bool]:
            offset = f"{before}/{after}" if after else None
            found = next(iter(obstore.list(self._store, before, offset=offset, chunk_size=_PAGE)), [])
            return sorted(str(entry["path"]) for entry in found), len(found) < _PAGE

        return self._request(folder, keys)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._request(key, lambda: _unless_absent(lambda: obstore.delete(self._store, key)))

    def modified(self, key: str) -> datetime | None:
        """See `Store.modified`."""
        # A HEAD request would return errors without a cause.
        return self._request(key, lambda: _unless_absent(lambda: obstore.get(self._store, key).meta["last_modified"]))

    def sweep(self, prefix: str) -> None:
        """See `Store.sweep`. An object is whole or absent, so nothing is ever left behind."""

    def _request(self, key: str, request: Callable[[], T]) -> T:
        for attempt in stamina.retry_context(on=StoreUnavailable, attempts=self._attempts, timeout=RETRY_S):
            with attempt:
                return self._translated(key, request)
        raise AssertionError("stamina yields at least one attempt")

    def _translated(self, key: str, request: Callable[[], T]) -> T:
        where = f"{self._url}: {key}"
        try:
            return request()
        except (exceptions.BaseError, OSError, NotImplementedError) as error:
            raise translated(error, where) from error


def _unless_absent(request: Callable[[], T]) -> T | None:
    try:
        return request()
    except FileNotFoundError as error:
        if is_absent(error):
            return None
        raise


class _Object(io.RawIOBase):
    """An object as a file. `begin` has its first bytes; the others are requested as they are read."""

    def __init__(self, store: ObjectStore, key: str, size: int, begin: bytes) -> None:
        self._request, self._key, self._size, self._begin = store.range_of, key, size, begin
        self._at = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    @override
    def readinto(self, buffer: Any) -> int:
        until = min(self._at + len(buffer), self._size)
        if until <= self._at:
            return 0
        within = until <= len(self._begin)
        data = self._begin[self._at : until] if within else self._request(self._key, self._at, until)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
