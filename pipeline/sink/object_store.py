"""The chain on S3, Google Cloud Storage, Azure and what speaks their protocols, through `obstore` (extra `s3`).

`create` is one conditional request (`If-None-Match: *`). A request whose answer was lost may have succeeded, and is
sent again: the AlreadyExists that then comes back is the chain's to resolve, by the attempt that the object carries.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import stamina

from pipeline.errors import SettingsError, StoreUnavailable
from pipeline.sink.store import AlreadyExists

try:
    import obstore
    import obstore.store
    from obstore import exceptions
except ImportError as error:
    msg = "sink.root is a URL, which needs the package obstore; install it with: pip install 'adawise[s3]'"
    raise SettingsError(msg) from error

T = TypeVar("T")

ATTEMPTS = 4
"""Tries of one request before StoreUnavailable; the worker's own retries come on top, with its partition paused."""

_DENIED = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
_MISCONFIGURED = (exceptions.InvalidPathError, exceptions.NotSupportedError, exceptions.UnknownConfigurationKeyError)


def open_url(url: str) -> ObjectStore:
    """The store that a URL names; keys, region and endpoint come from the provider's usual environment variables.

    Raises SettingsError if the URL names no store.
    """
    try:
        if url.startswith("memory://"):
            return ObjectStore(obstore.store.MemoryStore(), url=url)
        # One layer of retries, ours. No client options: they would replace those of the environment (AWS_ALLOW_HTTP).
        store = obstore.store.from_url(url, retry_config={"max_retries": 0})
    except (exceptions.BaseError, ValueError, TypeError) as error:
        msg = f"sink.root: expected a folder or a URL as s3://bucket/prefix, gs://... or az://..., but {url}: {error}"
        raise SettingsError(msg) from error
    return ObjectStore(store, url=url)


class ObjectStore:
    """A bucket, or a prefix of one. `url` is what messages call it."""

    def __init__(self, store: obstore.store.ObjectStore, *, url: str, attempts: int = ATTEMPTS) -> None:
        self._store = store
        self._url = url
        self._attempts = attempts

    def __str__(self) -> str:
        return self._url

    def create(self, key: str, data: bytes) -> None:
        """See `Store.create`."""
        self._ask(key, lambda: obstore.put(self._store, key, data, mode="create", use_multipart=False))

    def put(self, key: str, data: bytes) -> None:
        """See `Store.put`."""
        self._ask(key, lambda: obstore.put(self._store, key, data))

    def get(self, key: str) -> bytes | None:
        """See `Store.get`."""

        def bytes_of() -> bytes | None:
            try:
                return bytes(obstore.get(self._store, key).bytes())
            except FileNotFoundError:
                return None

        return self._ask(key, bytes_of)

    def list(self, prefix: str) -> list[str]:
        """See `Store.list`."""

        def keys() -> list[str]:
            pages = obstore.list(self._store, prefix.removesuffix("/") or None, chunk_size=1000)
            return sorted(str(entry["path"]) for page in pages for entry in page)

        return self._ask(prefix, keys)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""

        def gone() -> None:
            with suppress(FileNotFoundError):
                obstore.delete(self._store, key)

        self._ask(key, gone)

    def sweep(self, prefix: str) -> None:
        """See `Store.sweep`: an object is whole or absent, so nothing is ever left behind."""

    def _ask(self, key: str, request: Callable[[], T]) -> T:
        for attempt in stamina.retry_context(on=StoreUnavailable, attempts=self._attempts, timeout=None):
            with attempt:
                return self._translated(key, request)
        raise AssertionError("stamina yields at least one attempt")

    def _translated(self, key: str, request: Callable[[], T]) -> T:
        where = f"{self._url}: {key}"
        try:
            return request()
        except exceptions.AlreadyExistsError:
            raise AlreadyExists(key) from None
        except _DENIED as error:
            msg = f"{where}: expected the right to read, write and list here; check keys and policy: {_brief(error)}"
            raise SettingsError(msg) from error
        except (*_MISCONFIGURED, FileNotFoundError) as error:
            msg = f"{where}: expected an existing bucket with conditional writes; check sink.root: {_brief(error)}"
            raise SettingsError(msg) from error
        except (exceptions.BaseError, OSError) as error:
            msg = f"{where}: expected an answer from the store; it is tried again: {_brief(error)}"
            raise StoreUnavailable(msg) from error


def _brief(error: Exception) -> str:
    """What went wrong, without the dump of the request that obstore appends."""
    return str(error).partition("\n\nDebug source")[0]
