"""Answers of an object store that did not do what it was asked: the cause, whether to wait, and the remedy.

One table serves all requests. The client library names the cause of a refused PUT or GET, but of a LIST it says only
that it failed. Causes that can be removed elsewhere while the program runs (a clock, the network, the store itself) are
waited for. Causes that need a restart (a key, a setting) are not.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from adawise.errors import AdawiseError, SettingsError, StoreFull, StoreUnavailable


class AlreadyExists(Exception):
    """The key to be created exists. It is not an error of the program, and never leaves the sink."""


class Answer(NamedTuple):
    """One row of the table. `codes` are those of S3, Google and Azure, and the client's errors.

    `statuses` count if no code matches. Both are alternatives of a regular expression.
    """

    codes: str
    statuses: str
    cause: str
    waits: bool
    remedy: str


_NO_BUCKET = "NoSuchBucket|ContainerNotFound|ContainerBeingDeleted|InvalidBucketName"
_NO_SUCH_URL = "InvalidPathError|UnknownConfigurationKeyError"
_BUCKET = "check the URL (sink.root, record.root or the option that named it), the region and the endpoint"

FULL = Answer(
    *("QuotaExceeded|XMinioStorageFull", "507"),
    "the store is full",
    waits=True,
    remedy=StoreFull.REMEDY,
)

ANSWERS = (
    Answer(
        *("RequestTimeTooSkewed|RequestExpired|RequestInTheFuture", ""),
        "the clock of this machine is too far from the store's",
        waits=True,
        remedy="set the clock (`timedatectl`, NTP)",
    ),
    Answer(
        *("ExpiredToken|ExpiredTokenException|TokenRefreshRequired", ""),
        "the access key has expired",
        waits=False,
        remedy="put a new one into the environment and start again: stored data is not lost",
    ),
    Answer(
        "InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|InvalidSecurity|AuthenticationFailed"
        "|InvalidAuthenticationInfo|NoAuthenticationInformation",
        "401",
        "the store does not know the access key",
        waits=False,
        remedy="check it and its secret in the environment, and start again",
    ),
    Answer(
        *(f"{_NO_BUCKET}|{_NO_SUCH_URL}", "404"),
        "there is no such bucket",
        waits=False,
        remedy=f"{_BUCKET}; if the bucket was deleted, restore it",
    ),
    Answer(
        "PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraintException|redirect without LOCATION",
        "301|307",
        "the bucket is in another region",
        waits=False,
        remedy="set AWS_REGION to the bucket's",
    ),
    Answer(
        *("ConditionalRequestConflict|OperationAborted|SlowDown|TooManyRequests|RequestLimitExceeded", "429"),
        "the store limits the rate of requests",
        waits=True,
        remedy="if it lasts, larger segments (sink.flush_rows) make fewer requests",
    ),
    FULL,
    Answer(
        *("NotImplemented|MethodNotAllowed|NotImplementedError|NotSupportedError", "405|501"),
        "the store does not support conditional writes",
        waits=False,
        remedy=f"use one that does (If-None-Match), or {_BUCKET}",
    ),
    Answer(
        *("AccessDenied|AllAccessDisabled|AccountProblem|AuthorizationFailure|AuthorizationPermissionMismatch", "403"),
        "the access key lacks the right to do this",
        waits=False,
        remedy="give it the rights to read, write, list and delete under this URL (the bucket's policy), and start "
        "again",
    ),
    Answer(
        *("InternalError|ServiceUnavailable|ServerBusy", r"5\d\d"),
        "the store has failed",
        waits=True,
        remedy="check the store's state",
    ),
)
"""In order of precedence; codes are compared before statuses."""

RAISED = frozenset(
    {
        *("BaseError", "GenericError", "NotFoundError", "InvalidPathError", "JoinError", "NotSupportedError"),
        *("AlreadyExistsError", "PreconditionError", "NotModifiedError"),
        *("PermissionDeniedError", "UnauthenticatedError", "UnknownConfigurationKeyError"),
    }
)
"""The names of the errors that the client library raises."""

SILENCE = Answer(
    *("", ""),
    "no usable answer",
    waits=True,
    remedy="check the network, the endpoint and whether the link is too slow for the client's time-out",
)


def code_of(error: Exception) -> str:
    """Return the store's code for the error, else the name of the client's error."""
    found = re.search(r"<Code>(\w+)</Code>|(redirect without LOCATION)", str(error))
    return type(error).__name__ if found is None else found[1] or found[2]


def answer_of(error: Exception) -> Answer:
    """Return the row of the table for an error."""
    code, status = code_of(error), re.search(r"status code: (\d{3})", str(error))
    by_code = (answer for answer in ANSWERS if re.fullmatch(answer.codes, code))
    by_status = (answer for answer in ANSWERS if status and re.fullmatch(answer.statuses, status[1]))
    return next(by_code, None) or next(by_status, SILENCE)


def is_absent(error: FileNotFoundError) -> bool:
    """Return True if the object does not exist, and False if the bucket does not."""
    return re.fullmatch(_NO_BUCKET, code_of(error)) is None


def translated(error: Exception, where: str) -> AdawiseError:
    """Return our error for an error that the client library raised while it worked on `where`."""
    answer = answer_of(error)
    message = f"{where}: expected the store to do this, but {answer.cause} ({brief(error)})"
    if answer is FULL:
        return StoreFull(f"{message}; {answer.remedy}")
    if answer.waits:
        return StoreUnavailable(f"{message}. To fix it: {answer.remedy} ({StoreUnavailable.REMEDY})")
    return SettingsError(f"{message}. To fix it: {answer.remedy}")


def brief(error: Exception) -> str:
    """Return the error in one line, without the dump of the request; of an answer in XML, its code and message."""
    text = str(error).partition("\n\nDebug source")[0]
    request = re.search(r"Error performing ([A-Z]+) \S+ in \S+ - Server returned non-2xx status code: (.*)", text, re.S)
    if request is not None:
        text = f"{request[1]}: {request[2]}"
    if "<Code>" in text:
        message = re.search(r"<Message>([^<]*)</Message>", text)
        text = re.split(r"<\?xml|<Error>", text)[0] + code_of(error) + (f": {message[1]}" if message else "")
    return " ".join(text.split())
