"""The values in the file and in the environment, with the place of each. They are not checked here."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from adawise.settings.describe import (
    ENVIRONMENT_PREFIX,
    ENVIRONMENT_SEPARATOR,
    GROUPS,
    IN_A_FILE,
    SETTINGS,
    environment_name,
    file_name,
    flag_name,
    is_secret,
)
from adawise.settings.mistakes import Mistake, nearest
from adawise.store.files import SECRET_BYTES, read_bytes

FILE = "adawise.toml"
CONFIG = "config"
"""The name under which mistakes about the file as a whole are reported."""
CONFIG_VARIABLE = "ADAWISE_CONFIG"
TEST_PREFIX = "ADAWISE_TEST_"
"""The prefix of variables that control the project's own tests; they are not settings."""

Source = Literal["flag", "env", "file", "default"]


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a value: the kind of source, and the place in it."""

    source: Source
    place: str

    @override
    def __str__(self) -> str:
        return {"flag": "flag ", "env": "env ", "file": "", "default": ""}[self.source] + self.place


@dataclass(frozen=True, slots=True)
class Given:
    """A value as the user gave it, before any check."""

    name: str
    value: Any
    origin: Origin


def from_environment(environ: Mapping[str, str], folder: Path) -> tuple[list[Given], list[Mistake]]:
    """Return the settings in the environment, and the mistakes in their names or in files of secrets.

    Paths of such files are relative to `folder`.
    """
    given: list[Given] = []
    mistakes: list[Mistake] = []
    for variable, value in sorted(environ.items()):
        if not variable.upper().startswith(ENVIRONMENT_PREFIX) or (
            variable == CONFIG_VARIABLE or variable.startswith(TEST_PREFIX)
        ):
            continue
        name = variable[len(ENVIRONMENT_PREFIX) :].lower().replace(ENVIRONMENT_SEPARATOR, ".")
        if name in SETTINGS:
            given.append(Given(name, value, Origin("env", variable)))
            continue
        if secret := _secret_in_a_file(name):
            _read_secret(secret, value, folder, Origin("env", variable), given, mistakes)
            continue
        match = nearest(name, SETTINGS)
        hint = f"; did you mean {environment_name(match)}?" if match else "; see `adawise config show`"
        problem = "it is a group of settings, not a setting" if name in GROUPS else "there is no such setting"
        mistakes.append(Mistake(name, f"env {variable}", problem + hint))
    return given, mistakes


def find_file(flag: str | None, environ: Mapping[str, str], folder: Path) -> tuple[Path, bool]:
    """Return the file to read, and True if the user named it, so that it must exist."""
    named = flag or environ.get(CONFIG_VARIABLE)
    return (folder / named, True) if named else (folder / FILE, False)


def _secret_in_a_file(name: str) -> str | None:
    """Return the secret setting that a name with `_file` belongs to (`http.token_file` -> `http.token`), else None."""
    secret = name.removesuffix(IN_A_FILE)
    return secret if secret != name and secret in SETTINGS and is_secret(SETTINGS[secret]) else None


def _read_secret(
    name: str, value: Any, folder: Path, origin: Origin, given: list[Given], mistakes: list[Mistake]
) -> None:
    """Append the secret in the file `value`, without its line end, to `given`, or a mistake to `mistakes`."""
    try:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("expected the name of a file that holds the secret")
        file = folder / Path(value.strip()).expanduser()
        text = read_bytes(file, SECRET_BYTES).decode("utf-8-sig").rstrip("\r\n")
        if not text:
            raise ValueError("the file is empty; expected the secret in it")
    except OSError as error:
        problem = f"the file cannot be read: {error.strerror}; correct the path or its permissions"
        mistakes.append(Mistake(f"{name}{IN_A_FILE}", str(origin), problem, repr(value)))
    except UnicodeDecodeError:
        mistakes.append(Mistake(f"{name}{IN_A_FILE}", str(origin), "the file is not UTF-8; name another", repr(value)))
    except (ValueError, RuntimeError) as error:  # `expanduser` raises RuntimeError if there is no such home folder
        mistakes.append(Mistake(f"{name}{IN_A_FILE}", str(origin), f"{error}; correct the path", repr(value)))
    else:
        if any(other.name == name for other in given):
            problem = f"{name} is set too; leave one of them out"
            mistakes.append(Mistake(f"{name}{IN_A_FILE}", str(origin), problem))
        given.append(Given(name, text, origin))


def from_file(path: Path, shown_as: str, must_exist: bool, folder: Path) -> tuple[list[Given], list[Mistake]]:
    """Return the settings in a TOML file, and the mistakes in the file, its names or files of secrets.

    Args:
        path: path of the file.
        shown_as: name of the file in messages.
        must_exist: True if it is a mistake that the file does not exist.
        folder: folder that paths of files of secrets are relative to.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n")
        tree = tomllib.loads(text)
    except FileNotFoundError:
        problem = f"there is no such file; correct --config or {CONFIG_VARIABLE}, or leave it out"
        return [], [Mistake(CONFIG, shown_as, problem)] if must_exist else []
    except OSError as error:
        return [], [Mistake(CONFIG, shown_as, f"it cannot be read: {error.strerror}; expected a TOML file")]
    except UnicodeDecodeError as error:
        return [], [Mistake(CONFIG, shown_as, f"byte {error.start} is not UTF-8; save the file as UTF-8")]
    except ValueError as error:  # TOMLDecodeError, or a number with too many digits for `int`
        return [], [Mistake(CONFIG, shown_as, f"it is not TOML: {error}; correct that line")]
    except RecursionError:
        return [], [Mistake(CONFIG, shown_as, "it is nested too deeply; expected tables such as [kafka]")]
    lines = lines_of(text)
    given: list[Given] = []
    mistakes: list[Mistake] = []
    for name, value in sorted(_flatten(tree), key=lambda pair: _secret_in_a_file(pair[0]) is not None):
        line = next((lines[prefix] for prefix in _prefixes(name) if prefix in lines), None)
        place = f"{shown_as} line {line}" if line else shown_as
        if name in SETTINGS:
            given.append(Given(name, value, Origin("file", place)))
        elif secret := _secret_in_a_file(name):
            _read_secret(secret, value, folder, Origin("file", place), given, mistakes)
        else:
            mistakes.append(_unknown_in_file(name, value, place))
    return given, mistakes


def _unknown_in_file(name: str, value: Any, place: str) -> Mistake:
    if name in GROUPS:
        return Mistake(name, place, f"it is a group of settings; expected a table [{name}], got {type(value).__name__}")
    if isinstance(value, dict):
        match = nearest(name, GROUPS)
        return Mistake(name, place, "there is no such group" + (f"; did you mean [{match}]?" if match else _groups()))
    match = nearest(name, SETTINGS)
    hint = f"; did you mean {match} ({file_name(match)})?" if match else "; see `adawise config show`"
    return Mistake(name, place, "there is no such setting" + hint)


def _groups() -> str:
    return f"; there are {', '.join(f'[{name}]' for name in GROUPS)}"


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = prefix + key
        if name in GROUPS and isinstance(value, dict):
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _prefixes(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


_KEY = r"(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')"
_KEYS = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_TABLE = re.compile(rf"\s*\[\[?\s*({_KEYS})\s*\]")
_PAIR = re.compile(rf"\s*({_KEYS})\s*=(.*)", re.DOTALL)


def lines_of(text: str) -> dict[str, int]:
    """Return the line of each table and key by its dotted name.

    The text must be valid TOML. Lines inside multi-line strings are skipped.
    """
    lines: dict[str, int] = {}
    table, quote = "", ""
    for number, line in enumerate(text.split("\n"), start=1):
        if quote:
            quote = "" if line.count(quote) % 2 else quote
        elif header := _TABLE.match(line):
            table = _dotted(header[1])
            lines.setdefault(table, number)
        elif pair := _PAIR.match(line):
            lines.setdefault(f"{table}.{_dotted(pair[1])}".lstrip("."), number)
            quote = next((mark for mark in ('"""', "'''") if pair[2].count(mark) % 2), "")
    return lines


def _dotted(keys: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in re.findall(_KEY, keys))


def ways_to_set(name: str) -> str:
    """Return in words the ways in which a user can give the setting a value."""
    ways = [environment_name(name), f"{file_name(name)} in {FILE}"]
    if is_secret(SETTINGS[name]):
        return " or ".join([ways[0], f"{environment_name(name + IN_A_FILE)} (a file that holds it)", ways[1]])
    return " or ".join([flag_name(name), *ways])
