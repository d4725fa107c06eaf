"""Pin the images that deploy/ names: NAME:TAG becomes NAME:TAG@sha256:... Standard library only.

Their registries are asked for the digests, by the API of the OCI distribution specification. Registries that need a
login get PIN_IMAGES_USER and PIN_IMAGES_PASSWORD, if PIN_IMAGES_HOSTS names their hosts and those of their token
servers, separated by commas. No other host gets them.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import ipaddress
import json
import os
import re
import secrets
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

FOLDER = Path(__file__).parent
HUB = "registry-1.docker.io"  # of names without a host
BUILT = "adawise"  # built from deploy/Dockerfile: as long as its name has no host, it is in no registry
NOT_PINNED = 3  # the exit code of --check
# An index first: its digest is right for each platform.
TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
TIMEOUT_S, WHOLE_S = 20.0, 60.0  # of one read, of a whole answer
MOST_BYTES = 4 * 1024 * 1024  # of a manifest or a token; a registry has to take manifests of this size
MOST_REDIRECTS = 5

_DIGEST = r"sha256:[0-9a-f]{64}"
_IMAGE = re.compile(
    r"(?P<name>(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    rf"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?(?P<digest>@{_DIGEST})?(?![^\s\"',}}\]])"
)
# A key of YAML at the start of a line, after `-`, or within braces; so not a word of a sentence.
_YAML_KEY = re.compile(
    r"""(?:^[ \t]*(?:-[ \t]+)*|[{,][ \t]*)(?:(["'])image\1[ \t]*:|image[ \t]*:(?=\s|$))[ \t]*(?:&\S+[ \t]+)?["']?""",
    re.M,
)
_YAML_ALIAS = re.compile(r"\*([^\s,\]}]+)")
_KUSTOMIZE_KEY = re.compile(r"""(?<![\w-])["']?(?:newTag|newName)["']?[ \t]*:""")
_KUSTOMIZE_PAIR = re.compile(r"""(?<![\w-])(name|newName|newTag|digest)["']?[ \t]*:[ \t]*["']?([^\s,"'}]+)["']?""")
_SYNTAX = re.compile(r"\A(?:#[ \t]*\w+[ \t]*=.*\n)*?#[ \t]*syntax[ \t]*=[ \t]*", re.I)  # the image that parses the file
_ARG = re.compile(r"^[ \t]*ARG[ \t]+(\w+)=[\"']?", re.M | re.I)
_FROM = re.compile(
    r"^[ \t]*FROM[ \t]+(?:--\S+[ \t]+)*|^[ \t]*COPY[ \t](?:\\\s*\n|.)*?--from=|--mount=(?:[^\s,]+,)*from=", re.M | re.I
)
_STAGE = re.compile(r"^[ \t]*FROM[ \t].*[ \t]AS[ \t]+(\S+)", re.M | re.I)
_WORD = re.compile(r"[^\s,]*")
_CHALLENGE = re.compile(r'\b(\w+)="([^"]*)"')


class Mistake(Exception):
    """What keeps the script from its work, as a sentence. Characters that would move the cursor are replaced."""

    def __init__(self, sentence: str) -> None:
        super().__init__("".join(each if each.isprintable() else "?" for each in sentence))


class Named(NamedTuple):
    """One place that names an image.

    Attributes:
        path, line: the file and the line.
        name, tag: of the image; tag is "" if there is none.
        digest: "" if the image is not pinned.
        start, end: where the file's text has the digest, with `before`; an empty span if it has none.
        before: what is written before a digest.
    """

    path: Path
    line: int
    name: str
    tag: str
    digest: str
    start: int
    end: int
    before: str = "@"

    @property
    def image(self) -> str:
        """Name and tag, as messages show them."""
        return f"{self.name}:{self.tag}"


def images_in(folder: Path) -> list[Named]:
    """Return the images with a tag that YAML files and Dockerfiles below a folder name, those that are built left out.

    Raises:
        Mistake: an image is named in a form that is not understood, or without a tag.
    """
    found: list[Named] = []
    replaced: set[str] = set()  # names that a kustomization replaces
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        for name, named in _in_file(path, _read(path)) if _names_images(path) else ():
            replaced |= {name} - {""}
            found.append(named)
    for each in found:
        if not each.tag and not each.digest and each.name not in replaced:
            raise Mistake(f"{each.path}:{each.line}: {each.name} has no tag; write the tag of one release")
    return [each for each in found if each.tag and each.name != BUILT]


def _names_images(path: Path) -> bool:
    return _is_yaml(path) or _is_dockerfile(path)


def _is_yaml(path: Path) -> bool:
    return path.name == "Kustomization" or path.suffix in (".yaml", ".yml")


def _is_dockerfile(path: Path) -> bool:
    name = path.name.lower()
    return name.startswith(("dockerfile", "containerfile")) or name.endswith((".dockerfile", ".containerfile"))


def _in_file(path: Path, text: str) -> Iterator[tuple[str, Named]]:
    """Yield each image that a file's text names, and the name that it replaces in a kustomization, "" elsewhere."""
    if _is_yaml(path):  # whatever its name begins with: dockerfile.yml may be a workflow
        text = _without_comments(text, r"(?:^|(?<=[ \t]))#[^\r\n]*")
        yield from (("", named) for named in _in_yaml(path, text))
        if path.name in ("kustomization.yaml", "kustomization.yml", "Kustomization"):
            yield from _in_kustomization(path, text)
    else:
        if syntax := _SYNTAX.match(text):
            yield "", _at(path, text, syntax.end())
        yield from (("", named) for named in _in_dockerfile(path, _without_comments(text, r"^[ \t]*#[^\r\n]*")))


def _without_comments(text: str, comment: str) -> str:
    """Return the text with blanks in place of comments, so that each character keeps its place."""
    return re.sub(comment, lambda match: " " * len(match[0]), text, flags=re.M)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # line ends stay as they are
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{path}: cannot be read ({error})") from error


def _at(path: Path, text: str, start: int) -> Named:
    """Return the image that is named at a place of a text.

    Raises:
        Mistake: what is there is not the name of an image.
    """
    line = text.count("\n", 0, start) + 1
    if (match := _IMAGE.match(text, start)) is None:
        there = text[start:].split("\n", 1)[0].strip()
        raise Mistake(f"{path}:{line}: expected the name of an image, NAME:TAG, in this line, got {there or 'nothing'}")
    digest = match["digest"] or ""
    start = match.end() - len(digest)
    return Named(path, line, match["name"], match["tag"] or "", digest[1:], start, match.end())


def _in_yaml(path: Path, text: str) -> Iterator[Named]:
    places = set()
    for key in _YAML_KEY.finditer(text):
        place = key.end()
        if alias := _YAML_ALIAS.match(text, place):  # of the name behind the last such anchor before
            anchors = re.finditer(rf"""&{re.escape(alias[1])}[ \t]+["']?""", text[:place])
            place = max((anchor.end() for anchor in anchors), default=place)
        places.add(place)
    for place in sorted(places):
        yield _at(path, text, place)


def _in_kustomization(path: Path, text: str) -> Iterator[tuple[str, Named]]:
    """Yield for each entry of `images` the name that it replaces, and what is pulled in its place."""
    done = 0
    for key in _KUSTOMIZE_KEY.finditer(text):
        if key.start() < done:
            continue
        line = text.count("\n", 0, key.start()) + 1
        start, done, before = _entry(text, key.start())
        pairs = {pair[1]: pair for pair in _KUSTOMIZE_PAIR.finditer(text, start, done)}
        if "name" not in pairs or not {"newTag", "digest"} & pairs.keys():
            raise Mistake(f"{path}:{line}: expected an entry of images with name and newTag")
        name, new = pairs["name"][2], pairs.get("newName", pairs["name"])[2]
        pinned = pairs.get("digest")
        if (tag := pairs.get("newTag")) is None:  # by its digest alone: there is no tag to ask for
            yield name, Named(path, line, new, "", pairs["digest"][2], done, done)
        elif pinned is None:
            yield name, Named(path, line, new, tag[2], "", tag.end(), tag.end(), before)
        elif text[: pinned.start()].endswith(before.removesuffix("digest: ")):
            span = pinned.start() - len(before.removesuffix("digest: ")), pinned.end()
            yield name, Named(path, line, new, tag[2], pinned[2], *span, before)
        else:
            raise Mistake(f"{path}:{line}: expected digest after another key of this entry")


def _entry(text: str, at: int) -> tuple[int, int, str]:
    """Return start and end of the entry of a list that has a key at this place, and what is written before a digest."""
    opened = text.rfind("{", 0, at)
    if opened > text.rfind("}", 0, at):
        return opened, text.find("}", at), ", digest: "
    lines = [f"{line}\n" for line in text.split("\n")]
    starts = [sum(map(len, lines[:i])) for i in range(len(lines) + 1)]
    first = last = text.count("\n", 0, at)
    column = at - starts[first]
    while first and lines[first][:column].isspace():
        first -= 1
    while last + 1 < len(lines) and lines[last + 1][:column].isspace() and lines[last + 1][column : column + 1].strip():
        last += 1
    end = "\r\n" if lines[last].endswith("\r\n") else "\n"
    return starts[first], starts[last + 1], f"{end}{' ' * column}digest: "


def _in_dockerfile(path: Path, text: str) -> Iterator[Named]:
    arguments = {match[1]: match.end() for match in reversed([*_ARG.finditer(text)])}  # the first of a name
    stages = {match[1].lower(): match.start() for match in reversed([*_STAGE.finditer(text)])} | {"scratch": -1}
    places = set()
    for each in _FROM.finditer(text):
        match = _WORD.match(text, each.end())
        word = match[0] if match else ""
        variable = re.fullmatch(r"\$\{?(\w+)\}?", word)
        if variable and variable[1] in arguments:
            places.add(arguments[variable[1]])
        elif stages.get(word.lower(), each.start()) >= each.start() and not word.isdigit():  # not of a stage before it
            places.add(each.end())
    for place in sorted(places):
        yield _at(path, text, place)


class Answer(NamedTuple):
    """The answer of a server."""

    status: int
    headers: Message
    body: bytes


class _Stay(urllib.request.HTTPRedirectHandler):
    """Redirects are followed by `Registries`, which looks at each."""

    def http_error_302(self, *_: object) -> None:
        """Follow none."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302  # type: ignore[assignment]


class Registries:
    """The registries, each image of which is asked for once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._hosts = {host.strip() for host in environ.get("PIN_IMAGES_HOSTS", "").split(",")} - {""}
        pair = f"{environ.get('PIN_IMAGES_USER', '')}:{environ.get('PIN_IMAGES_PASSWORD', '')}"
        self._login = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self._digests: dict[str, str] = {}
        self._opener = urllib.request.build_opener(_Stay)

    def digest(self, name: str, tag: str) -> str:
        """Return the digest that a tag has now, compared with the manifest itself.

        Raises:
            Mistake: the registry does not answer, does not have it, or contradicts itself.
        """
        image = f"{name}:{tag}"
        if image not in self._digests:
            host, repository = _registry_of(name)
            try:
                self._digests[image] = self._ask(image, host, repository, tag)
            except ValueError as error:  # of urllib.parse
                raise Mistake(f"{image}: {host} names an address that is none ({error})") from error
        return self._digests[image]

    def _ask(self, image: str, host: str, repository: str, tag: str) -> str:
        url = f"{'http' if _is_here(host) else 'https'}://{host}/v2/{repository}/manifests/"
        authorization = ""
        head = self._request("HEAD", url + tag)
        if head.status == 401:
            authorization = self._authorization(image, host, repository, head.headers.get("WWW-Authenticate", ""))
            head = self._request("HEAD", url + tag, authorization)
        _check(image, host, head)
        stated = head.headers.get("Docker-Content-Digest", "")
        if stated and not re.fullmatch(_DIGEST, stated):
            raise Mistake(f"{image}: {host} states the digest {stated[:100]!r}, which is not one by SHA-256")
        # By its digest where there is one: the tag may move meanwhile.
        manifest = self._request("GET", url + (stated or tag), authorization)
        _check(image, host, manifest)
        digest = f"sha256:{hashlib.sha256(manifest.body).hexdigest()}"
        if stated and digest != stated:
            raise Mistake(f"{image}: {host} states the digest {stated}, and its manifest has {digest}; pin neither")
        return digest

    def _authorization(self, image: str, host: str, repository: str, challenge: str) -> str:
        """Return the header that a registry's challenge asks for: mostly an anonymous token."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and host in self._hosts:
            return self._login
        facts = dict(_CHALLENGE.findall(rest))
        if scheme.lower() != "bearer" or not facts.get("realm"):
            raise Mistake(f"{image}: {host} needs a login; set PIN_IMAGES_USER, PIN_IMAGES_PASSWORD, PIN_IMAGES_HOSTS")
        query = {"scope": facts.get("scope", f"repository:{repository}:pull")}
        query |= {"service": facts["service"]} if "service" in facts else {}
        realm = facts["realm"]
        where = urlsplit(realm).netloc
        # A registry chooses where it sends us, and gets the token that the login buys. So it has to be listed too.
        login = self._login if where in self._hosts and host in self._hosts | {HUB} else ""
        _check_url(realm, is_from_here=_is_here(host))
        answer = self._request("GET", f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(query)}", login)
        if answer.status != 200:
            raise Mistake(f"{image}: {where} gives no token ({_status(answer)})")
        try:
            reply = json.loads(answer.body)
            token = reply.get("token") or reply["access_token"]
            if re.fullmatch(r"[!-~]+", token):
                return f"Bearer {token}"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            pass
        raise Mistake(f"{image}: {where} answers without a token")

    def _request(self, method: str, url: str, authorization: str = "") -> Answer:
        """Return the answer of a server, or of another one to which it redirects; only the first gets the header."""
        origin = urlsplit(url)[:2]
        for _ in range(MOST_REDIRECTS + 1):
            request = urllib.request.Request(url, method=method, headers={"Accept": ", ".join(TYPES)})
            if authorization and urlsplit(url)[:2] == origin:
                request.add_header("Authorization", authorization)
            answer = self._answer(request)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            target = urljoin(url, answer.headers.get("Location", ""))
            _check_url(target, is_from_here=_is_here(urlsplit(url).netloc))
            url = target
        raise Mistake(f"{origin[1]} redirects more than {MOST_REDIRECTS} times")

    def _answer(self, request: urllib.request.Request) -> Answer:
        host = request.host  # of the registry; `open` puts that of a proxy in its place
        try:
            try:
                reply = self._opener.open(request, timeout=TIMEOUT_S)
            except urllib.error.HTTPError as error:
                reply = error  # an answer, too
            with reply:
                return Answer(reply.status, reply.headers, _body(reply, host))
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise Mistake(f"{host} does not answer ({reason or type(error).__name__})") from error


def _body(reply: http.client.HTTPResponse | urllib.error.HTTPError, host: str) -> bytes:
    body, give_up = bytearray(), time.monotonic() + WHOLE_S
    while piece := reply.read1(65_536):
        body += piece
        if len(body) > MOST_BYTES:
            raise Mistake(f"{host} answers with more than {MOST_BYTES} bytes, which no manifest has")
        if time.monotonic() > give_up:
            raise Mistake(f"{host} takes more than {WHOLE_S:.0f} s for one answer")
    return bytes(body)


def _registry_of(name: str) -> tuple[str, str]:
    """Return the host of the registry and the repository in it, by Docker's rules for short names."""
    host, slash, rest = name.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        if host not in ("docker.io", "index.docker.io"):
            return host, rest
        name = rest
    return HUB, name if "/" in name else f"library/{name}"


def _is_here(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.removesuffix(".") == "localhost"
    return address.is_loopback or address.is_unspecified


def _check_url(url: str, *, is_from_here: bool) -> None:
    """Raise Mistake unless a server may send us there: by https, and to this machine only from this machine."""
    parts = urlsplit(url)
    to_here = _is_here(parts.netloc)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and to_here)
    if not (is_safe and parts.hostname and not parts.username and (is_from_here or not to_here)):
        there = f"{parts.scheme}://{parts.hostname or ''}"[:200]
        raise Mistake(f"a registry sends us to {there}; expected another machine, by https and without a user")


def _check(image: str, host: str, answer: Answer) -> None:
    """Raise Mistake unless this is the answer about a manifest."""
    if answer.status == 429:
        wait = answer.headers.get("Retry-After", "")
        until = f" for {wait} s" if wait.isdigit() else ""
        raise Mistake(f"{image}: {host} has too many requests from here; wait{until}, or log in (PIN_IMAGES_USER)")
    if answer.status in (401, 403):
        raise Mistake(
            f"{image}: {host} does not let us read it ({_status(answer)}): there is no such image, or it needs a "
            "login (PIN_IMAGES_USER, PIN_IMAGES_PASSWORD, PIN_IMAGES_HOSTS)"
        )
    if answer.status == 404:
        raise Mistake(f"{image}: {host} has no such image or tag")
    if answer.status != 200:
        raise Mistake(f"{image}: {host} answers {_status(answer)}")
    if (kind := answer.headers.get_content_type()) not in TYPES:
        raise Mistake(f"{image}: {host} answers with {kind}, which is not a manifest")


def _status(answer: Answer) -> str:
    return f"{answer.status} {http.client.responses.get(answer.status, '')}".rstrip()


def write(changes: Iterable[tuple[Named, str]]) -> None:
    """Write digests where images are named ("" removes one); each file is replaced as a whole.

    Raises:
        Mistake: a file cannot be written, or has changed since it was read.
    """
    by_path: dict[Path, list[tuple[Named, str]]] = {}
    for each, digest in changes:
        by_path.setdefault(each.path, []).append((each, digest))
    for path, places in by_path.items():
        text = _read(path)
        if not {each for each, _ in places} <= {named for _, named in _in_file(path, text)}:
            raise Mistake(f"{path}: it was changed by another program; run this again")
        for each, digest in sorted(places, key=lambda place: -place[0].start):
            text = text[: each.start] + (each.before + digest if digest else "") + text[each.end :]
        _replace(path.resolve(), text.encode())


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Mistake(f"{path}: cannot be written ({error.strerror})") from error


def _digests(found: Iterable[Named], digest_of: Callable[[str, str], str]) -> tuple[dict[str, str], list[str]]:
    """Return the digest of each image, and a sentence for each that was not obtained."""
    digests: dict[str, str] = {}
    mistakes: dict[str, str] = {}
    for each in found:
        try:
            digests[each.image] = digest_of(each.name, each.tag)
        except Mistake as mistake:
            mistakes[each.image] = str(mistake)
    return digests, list(mistakes.values())


def check(found: Iterable[Named], digest_of: Callable[[str, str], str]) -> int:
    """Print what is not pinned to what its tag has now, and return the exit code."""
    places = list(found)
    digests, mistakes = _digests([each for each in places if each.digest], digest_of)
    wrong = [f"{each.path}:{each.line}: {each.image} is not pinned" for each in places if not each.digest]
    wrong += [
        f"{each.path}:{each.line}: {each.image} is pinned to {each.digest}, and the registry now has {now}"
        for each in places
        if each.digest and (now := digests.get(each.image, each.digest)) != each.digest
    ]
    for line in (*wrong, *mistakes):
        print(line, file=sys.stderr)
    if not wrong and not mistakes:
        print(f"{len(places)} places name images, each pinned to what its tag has now")
    return NOT_PINNED if wrong else 1 if mistakes else 0


def pin(found: Iterable[Named], digest_of: Callable[[str, str], str]) -> int:
    """Pin all images, or none if the digest of one is not obtained, and return the exit code."""
    places = list(found)
    digests, mistakes = _digests(places, digest_of)
    if mistakes:
        print(*mistakes, "nothing was written", sep="\n", file=sys.stderr)
        return 1
    changes = [(each, digests[each.image]) for each in places if each.digest != digests[each.image]]
    write(changes)
    for each, digest in changes:
        was = f" (it was {each.digest})" if each.digest else ""
        print(f"{each.path}:{each.line}: {each.image}@{digest}{was}")
    print(f"{len(changes)} of {len(places)} places were changed")
    return 0


def unpin(found: Iterable[Named]) -> int:
    """Remove the digests of images that have a tag, and return the exit code."""
    changes = [(each, "") for each in found if each.digest]
    write(changes)
    print(f"{len(changes)} digests were removed")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Pin, check or unpin, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0], allow_abbrev=False)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where to look, with what is below it")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check", action="store_true", help="change nothing; exit code 3 if a tag is not pinned, or has moved since"
    )
    what.add_argument("--unpin", action="store_true", help="remove the digests; no registry is asked")
    options = parser.parse_args(arguments)
    try:
        if not options.folder.is_dir():
            raise Mistake(f"{options.folder}: there is no such folder")
        found = images_in(options.folder)
        if options.unpin:
            return unpin(found)
        digest_of = Registries(os.environ).digest
        return check(found, digest_of) if options.check else pin(found, digest_of)
    except Mistake as mistake:
        print(mistake, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
