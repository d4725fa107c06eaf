"""`deploy/pin_images.py` against a registry of our own: what it finds, asks, writes and refuses."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typing_extensions import override

from tests.deadlines import DEADLINE_S
from tests.deploy.scripts import loaded
from tests.deploy.test_pins import is_exact
from tests.deploy.watching import DEPLOY
from tests.loopback import Answering, Server, serving

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
ABSENT = "sha256:" + "0" * 64


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


class Request(Answering):
    """What a registry and a token server answer."""

    server: Registry

    def head(self) -> None:
        self.get()

    def get(self) -> None:
        registry, path = self.server, self.path
        authorization = self.headers.get("authorization")
        registry.requests.append((self.command, path, authorization))
        assert INDEX in self.headers["accept"]
        if path.startswith("/token"):
            return self.answer(200, registry.token_reply)
        if registry.token and authorization != f"Bearer {registry.token}":
            return self.answer(401, www_authenticate=registry.challenge)
        return registry.respond(self)

    def manifest(self, body: bytes = MANIFEST, kind: str = INDEX, stated: str | None = None) -> None:
        """Answer with a manifest and its digest, or with the one that is `stated`; "": with none."""
        headers = {"content_type": kind, "content_length": str(len(body))}
        if stated != "":
            headers["docker_content_digest"] = stated or digest_of(body)
        self.answer(200, b"" if self.command == "HEAD" else body, **headers)


class Registry(Server):
    """A registry that has each image under each tag, with one manifest, unless a test says otherwise."""

    def __init__(self) -> None:
        super().__init__(Request)
        self.requests: list[tuple[str, str, str | None]] = []
        self.respond: Callable[[Request], None] = lambda request: request.manifest()
        self.token = ""  # that it asks for
        self.challenge = f'Bearer realm="{self.address}/token",service="tests",scope="repository:a/b:pull"'
        self.token_reply = b"{}"

    @override
    def handle_error(self, *_: object) -> None:
        """A client that had enough of an answer closes the connection."""

    @property
    def host(self) -> str:
        return self.address.removeprefix("http://")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving(Registry()) as server:
        yield server


@pytest.fixture
def script(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, for which the registry is Docker Hub."""
    monkeypatch.setenv("no_proxy", "*")
    for name in ("PIN_IMAGES_USER", "PIN_IMAGES_PASSWORD", "PIN_IMAGES_HOSTS"):
        monkeypatch.delenv(name, raising=False)
    module = loaded("pin_images")
    module.HUB = registry.host
    return module


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    """A copy of deploy/."""
    copy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns("secrets", "__pycache__"))
    return copy


def folder_of(tmp_path: Path, text: str, name: str = "compose.yaml") -> Path:
    (tmp_path / "one").mkdir(exist_ok=True)
    (tmp_path / "one" / name).write_text(text)
    return tmp_path / "one"


def named_in(value: object) -> Iterator[str]:
    """Images of a parsed YAML document, also in patches, which are texts."""
    if isinstance(value, dict):
        for key, inside in value.items():
            if key == "image" and isinstance(inside, str):
                yield inside
            elif key == "patch":
                yield from named_in(yaml.safe_load(inside))
            else:
                yield from named_in(inside)
        for entry in value.get("images", ()) if value.get("kind") == "Kustomization" else ():
            yield f"{entry.get('newName', entry['name'])}:{entry['newTag']}"
    elif isinstance(value, list):
        for inside in value:
            yield from named_in(inside)


def named_by_yaml(folder: Path) -> set[str]:
    files = [path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml")]
    return {image for path in files for each in yaml.safe_load_all(path.read_text()) for image in named_in(each)}


def without_built(images: set[str]) -> set[str]:
    return {image for image in images if image.partition(":")[0] != "adawise"}


# What it finds.


def test_each_image_that_deploy_names_is_found(script: Any) -> None:
    found = {each.image for each in script.images_in(DEPLOY)}
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    bases = set(re.findall(r"^ARG BASE=([^@\s]+)", dockerfile, re.MULTILINE))
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${BASE}"}
    assert found == {image.partition("@")[0] for image in without_built(named_by_yaml(DEPLOY))} | bases
    assert len(found) >= 6


@pytest.mark.parametrize(
    "planted",
    [
        "services:\n  new:\n    image: PLANTED\n",
        "services: {new: {image: PLANTED, read_only: true}}\n",
        "services:\n  new:\n    image: 'PLANTED' # a comment\n",
        'spec:\n  containers:\n    - image: "PLANTED"\n      name: new\n',
        'services: {"new": {"image":"PLANTED"}}\n',
        "services:\n  new:\n    image : PLANTED\n",
        "x-image: &name PLANTED\nservices: {new: {image: *name}}\n",
        "x-image: &image\n  image: &name PLANTED\nservices: {new: {image: *name}}\n",
        "kind: Kustomization\npatches:\n  - patch: |-\n      containers:\n        - {name: new, image: PLANTED}\n",
        "kind: Kustomization\nimages: [{name: new, newName: registry.example/new, newTag: 1.2.3}]\n",
        "kind: Kustomization\nimages:\n  - name: new\n    newName: registry.example/new\n    newTag: '1.2.3'\n\na: 1\n",
        "kind: Kustomization\r\nimages:\r\n- newTag: 1.2.3\r\n  name: registry.example/new\r\n",
        "kind: Kustomization\nimages:\n  - {name: new, newName: registry.example/new,\n     newTag: 1.2.3}\n",
        'kind: Kustomization\nimages:\n  - "name": registry.example/new\n    "newTag": 1.2.3\n',
    ],
)
@pytest.mark.cases("deploy", every=5)
def test_a_planted_image_is_found_pinned_and_released(planted: str, script: Any, deploy: Path) -> None:
    before = {each.image for each in script.images_in(deploy)}
    file = deploy / "prometheus" / "kustomization.yaml"
    text = planted.replace("PLANTED", "registry.example/new:1.2.3")
    file.write_bytes(text.encode())
    found = script.images_in(deploy)
    assert {each.image for each in found} == before | {"registry.example/new:1.2.3"}
    assert without_built(named_by_yaml(deploy)) == {each.image for each in found if each.path.suffix == ".yaml"}

    script.write([(each, ABSENT) for each in found if each.path == file])
    document = yaml.safe_load(file.read_bytes())
    digests = [entry.get("digest") for entry in document.get("images", ())]
    images = list(named_in(document))
    assert digests == [ABSENT] or f"registry.example/new:1.2.3@{ABSENT}" in images, file.read_text()
    assert [each.digest for each in script.images_in(deploy) if each.path == file] == [ABSENT]
    assert script.main([str(deploy), "--unpin"]) == 0
    assert file.read_bytes() == text.encode()


@pytest.mark.parametrize(
    ("dockerfile", "images"),
    [
        ("ARG BASE=a/b:1.0\nFROM ${BASE} AS build\nFROM $BASE\nCOPY --from=build /x /x\n", ["a/b:1.0"]),
        ("ARG BASE='a/b:1.0'\nFROM --platform=linux/amd64 ${BASE}\nARG BASE\nARG BASE=c:2\n", ["a/b:1.0"]),
        ("# FROM no:1\nFROM a/b:1.0 AS Build\nFROM scratch\nCOPY --from=c:2 /x /x\nFROM build\n", ["a/b:1.0", "c:2"]),
        ("FROM a:1\nCOPY --from=0 /x /x\n", ["a:1"]),
        ("  FROM a:1\r\n copy --chown=b \\\r\n  --from=c:2 /x /x\r\n", ["a:1", "c:2"]),
        ("FROM a:1\nRUN --mount=type=bind,from=c:2,source=/x --mount=from=d:3,target=/y x\n", ["a:1", "c:2", "d:3"]),
        ("# check=skip=all\n# syntax=docker/dockerfile:1\nFROM a:1\n", ["docker/dockerfile:1", "a:1"]),
    ],
)
def test_images_of_a_dockerfile(dockerfile: str, images: list[str], script: Any, tmp_path: Path) -> None:
    found = script.images_in(folder_of(tmp_path, dockerfile, "Dockerfile"))
    assert [each.image for each in found] == images


@pytest.mark.parametrize(
    ("name", "images"),
    [
        *((name, ["a:1"]) for name in ("Dockerfile.gpu", "dockerfile", "gpu.Dockerfile", "Containerfile")),
        *((name, ["b:2"]) for name in ("dockerfile.yml", "Containerfile.yaml", "Kustomization")),
        *((name, []) for name in ("README.md", "docker-compose.txt")),
    ],
)
def test_the_name_of_a_file_decides_how_it_is_read(name: str, images: list[str], script: Any, tmp_path: Path) -> None:
    found = script.images_in(folder_of(tmp_path, "FROM a:1\n---\nimage: b:2\n", name))
    assert [each.image for each in found] == images


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("compose.yaml", "a:\n  image: redis\n", "compose.yaml:2: redis has no tag; write the tag of one release"),
        ("compose.yaml", "image: ${IMAGE:-redis:1}\n", "compose.yaml:1: expected the name of an image, NAME:TAG"),
        ("values.yml", "image:\n  repository: redis\n", "values.yml:1: expected .* got nothing"),
        ("values.yml", "image: a:1@sha256:12\n", "values.yml:1: expected the name of an image"),
        ("Dockerfile", "ARG V=1\nFROM python:${V}\n", "Dockerfile:2: expected the name of an image"),
        ("Dockerfile", "FROM ${NOT_SET}\n", "Dockerfile:1: expected the name of an image"),
        ("Dockerfile", "FROM python\n", "Dockerfile:1: python has no tag"),
        ("Dockerfile", "FROM python AS python\nFROM python\n", "Dockerfile:1: python has no tag"),
        ("compose.yaml", "image: *nowhere\n", "compose.yaml:1: expected the name of an image"),
        ("Kustomization", "images:\n- name: a\n  newName: b\n", "Kustomization:3: expected an entry of images"),
        (
            "kustomization.yaml",
            "images: [{name: a, newName: b}]\n",
            "kustomization.yaml:1: expected an entry of images",
        ),
        (
            "kustomization.yaml",
            f"images: [{{digest: '{ABSENT}', name: a, newTag: b}}]\n",
            "kustomization.yaml:1: expected digest after another key",
        ),
    ],
)
def test_a_name_that_it_does_not_understand_is_refused(
    name: str, text: str, message: str, script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([str(folder_of(tmp_path, text, name))]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "host", "repository"),
    [
        ("python", None, "library/python"),
        ("prom/prometheus", None, "prom/prometheus"),
        ("docker.io/python", None, "library/python"),
        ("docker.io/prom/prometheus", None, "prom/prometheus"),
        ("registry.example/a/b/c", "registry.example", "a/b/c"),
        ("localhost/a", "localhost", "a"),
        ("here:5000/a", "here:5000", "a"),
    ],
)
def test_registries_of_names(name: str, host: str | None, repository: str, script: Any) -> None:
    assert script._registry_of(name) == (host or script.HUB, repository)


# What it writes.


def rendered(folder: Path) -> dict[str, object]:
    """By overlay, the images that kustomize renders."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("kustomization.yaml")):
        done = subprocess.run(["kubectl", "kustomize", str(path.parent)], capture_output=True, timeout=DEADLINE_S)
        assert done.returncode == 0, done.stderr
        found[str(path.parent.relative_to(folder))] = list(yaml.safe_load_all(done.stdout))
    return found


def test_the_files_of_deploy_are_valid_once_they_are_pinned(
    script: Any, registry: Registry, deploy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [path for path in deploy.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    modes = {path: path.stat().st_mode for path in files}
    compose, digest = yaml.safe_load((deploy / "compose.yaml").read_text()), digest_of(MANIFEST)
    assert script.main([str(deploy), "--check"]) == 3
    assert script.main([str(deploy)]) == 0

    pinned = yaml.safe_load((deploy / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        if name != "worker":  # built here
            service["image"] += f"@{digest}"
            assert is_exact(service["image"])
    assert pinned == compose
    (base,) = re.findall(r"^ARG BASE=(\S+)$", (deploy / "Dockerfile").read_text(), re.MULTILINE)
    assert is_exact(base)
    assert base.endswith(f"@{digest}")
    assert {path for path in files if path.read_bytes() != before[path]} == {
        deploy / "Dockerfile",
        deploy / "compose.yaml",
    }
    assert {path for path in deploy.rglob("*") if path.is_file()} == set(files)  # no temporary files
    assert {path: path.stat().st_mode for path in files} == modes
    asked = [path for method, path, _ in registry.requests if method == "HEAD"]
    assert len(asked) == len({*asked}), "each image once"
    assert "/v2/library/python/manifests/3.11.14-slim-bookworm" in asked

    capsys.readouterr()
    assert script.main([str(deploy), "--check"]) == 0
    assert "each pinned to what its tag has now" in capsys.readouterr().out
    assert script.main([str(deploy)]) == 0
    assert capsys.readouterr().out.startswith("0 of ")
    assert script.main([str(deploy), "--unpin"]) == 0
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on PATH")
def test_kustomize_renders_the_pinned_image(script: Any, registry: Registry, deploy: Path) -> None:
    """The name that a user gives to the image that was built and pushed."""
    for path in deploy.rglob("kustomization.yaml"):
        path.write_text(
            path.read_text().replace("{name: adawise, ", f"{{name: adawise, newName: {registry.host}/adawise, ")
        )
    tags = rendered(deploy)
    assert script.main([str(deploy)]) == 0
    digests = rendered(deploy)
    text, at = json.dumps(digests), f"@{digest_of(MANIFEST)}"
    assert at in text
    assert json.loads(re.sub(rf"(:[0-9][\w.-]*)?{at}", "", text)) == json.loads(
        re.sub(rf"({registry.host}/adawise):[0-9][\w.-]*", r"\1", json.dumps(tags))
    )


def test_an_image_is_pinned_again_where_its_tag_has_moved(
    script: Any, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, f"image: a/b:1@{ABSENT}\n---\nimage: c/d@{ABSENT}\n")
    assert script.main([str(folder), "--check"]) == 3
    assert f"compose.yaml:1: a/b:1 is pinned to {ABSENT}, and the registry now has {digest_of(MANIFEST)}" in (
        capsys.readouterr().err
    )
    assert script.main([str(folder)]) == 0
    assert f"(it was {ABSENT})" in capsys.readouterr().out
    assert (folder / "compose.yaml").read_text() == (
        f"image: a/b:1@{digest_of(MANIFEST)}\n---\nimage: c/d@{ABSENT}\n"  # there is no tag to ask for
    )
    assert script.main([str(folder), "--check"]) == 0


def test_nothing_is_written_if_one_image_is_not_obtained(
    script: Any, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.respond = lambda request: request.answer(404) if "/c/" in request.path else request.manifest()
    text = "image: a/b:1\n---\nimage: c/d:1\n"
    folder = folder_of(tmp_path, text)
    assert script.main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert error == f"c/d:1: {registry.host} has no such image or tag\nnothing was written\n"
    assert (folder / "compose.yaml").read_text() == text


def test_a_write_that_fails_leaves_the_file_as_it_was(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, "image: a/b:1\n")

    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script.os, "fsync", fsync)
    assert script.main([str(folder)]) == 1
    assert "compose.yaml: cannot be written (No space left on device)" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("compose.yaml", "image: a/b:1\n")]


def test_a_file_that_was_changed_meanwhile_is_left_alone(
    script: Any, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder_of(tmp_path, "image: a/b:1\n") / "compose.yaml"
    edited = "# a line that somebody writes while registries are asked\nimage: a/b:1\n"

    def respond(request: Request) -> None:
        file.write_text(edited)
        request.manifest()

    registry.respond = respond
    assert script.main([str(file.parent)]) == 1
    assert "it was changed by another program; run this again" in capsys.readouterr().err
    assert file.read_text() == edited


def test_a_link_stays_a_link(script: Any, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a: 1\n")
    (tmp_path / "real.yaml").write_text("image: a/b:1\n")
    (folder / "link.yaml").symlink_to(tmp_path / "real.yaml")
    assert script.main([str(folder)]) == 0
    assert (folder / "link.yaml").is_symlink()
    assert (tmp_path / "real.yaml").read_text() == f"image: a/b:1@{digest_of(MANIFEST)}\n"


# What it asks.


def test_an_anonymous_token_is_fetched_where_the_registry_asks_for_one(script: Any, registry: Registry) -> None:
    registry.token, registry.token_reply = "secret", b'{"token": "secret"}'
    assert script.Registries({}).digest("a/b", "1") == digest_of(MANIFEST)
    assert registry.requests == [
        ("HEAD", "/v2/a/b/manifests/1", None),
        ("GET", "/token?scope=repository%3Aa%2Fb%3Apull&service=tests", None),
        ("HEAD", "/v2/a/b/manifests/1", "Bearer secret"),
        ("GET", f"/v2/a/b/manifests/{digest_of(MANIFEST)}", "Bearer secret"),
    ]


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_login_is_sent_to_listed_hosts_alone(is_listed: bool, script: Any, registry: Registry) -> None:
    registry.token, registry.token_reply = "secret", b'{"access_token": "secret"}'
    hosts = f"registry.example, {registry.host if is_listed else 'auth.example'}"
    environ = {"PIN_IMAGES_USER": "yard", "PIN_IMAGES_PASSWORD": "word", "PIN_IMAGES_HOSTS": hosts}
    assert script.Registries(environ).digest("a/b", "1") == digest_of(MANIFEST)
    (sent,) = [authorization for _, path, authorization in registry.requests if path.startswith("/token")]
    assert sent == (f"Basic {b64encode(b'yard:word').decode()}" if is_listed else None)


def test_a_registry_that_is_not_listed_gets_no_token_of_a_listed_server(script: Any, registry: Registry) -> None:
    with serving(Registry()) as listed:
        registry.token, listed.token_reply = "secret", b'{"token": "secret"}'
        registry.challenge = f'Bearer realm="{listed.address}/token",scope="repository:private/b:pull,push"'
        environ = {"PIN_IMAGES_USER": "yard", "PIN_IMAGES_PASSWORD": "word", "PIN_IMAGES_HOSTS": listed.host}
        script.HUB = "hub.example"
        script.Registries(environ).digest(f"{registry.host}/a/b", "1")
    ((_, path, authorization),) = listed.requests
    assert path.startswith("/token")
    assert authorization is None, "the registry gets what an anonymous user would"


def test_a_registry_that_asks_for_a_password_gets_it_if_it_is_listed(script: Any, registry: Registry) -> None:
    registry.token, registry.challenge = "-", 'Basic realm="tests"'
    with pytest.raises(script.Mistake, match=r"a/b:1: .* needs a login; set PIN_IMAGES_USER"):
        script.Registries({}).digest("a/b", "1")
    environ = {"PIN_IMAGES_USER": "yard", "PIN_IMAGES_PASSWORD": "word", "PIN_IMAGES_HOSTS": registry.host}
    with pytest.raises(script.Mistake, match="does not let us read it"):  # it was not the right one
        script.Registries(environ).digest("a/b", "1")
    assert registry.requests[-1][2] == f"Basic {b64encode(b'yard:word').decode()}"


def test_a_redirect_is_followed_without_the_token(script: Any, registry: Registry) -> None:
    registry.token, registry.token_reply = "secret", b'{"token": "secret"}'
    with serving(Registry()) as other:
        registry.respond = lambda request: request.answer(307, location=f"{other.address}/elsewhere")
        assert script.Registries({}).digest("a/b", "1") == digest_of(MANIFEST)
        assert other.requests == [("HEAD", "/elsewhere", None), ("GET", "/elsewhere", None)]


def test_a_redirect_within_the_registry_keeps_the_token(script: Any, registry: Registry) -> None:
    registry.token, registry.token_reply = "secret", b'{"token": "secret"}'
    registry.respond = lambda request: (
        request.manifest() if request.path == "/moved" else request.answer(302, location="/moved")
    )
    assert script.Registries({}).digest("a/b", "1") == digest_of(MANIFEST)
    assert registry.requests[-1] == ("GET", "/moved", "Bearer secret")


def test_a_digest_that_the_registry_does_not_state_is_that_of_the_manifest(script: Any, registry: Registry) -> None:
    registry.respond = lambda request: request.manifest(stated="")
    assert script.Registries({}).digest("a/b", "1") == digest_of(MANIFEST)
    assert registry.requests[-1][:2] == ("GET", "/v2/a/b/manifests/1")


def answers(status: int, **headers: str) -> Callable[[Request], None]:
    return lambda request: request.answer(status, b"", **headers)


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        (answers(404), "a/b:1: HOST has no such image or tag$"),
        (answers(429, retry_after="30"), r"too many requests from here; wait for 30 s, or log in \(PIN_IMAGES_USER\)"),
        (answers(403), r"HOST does not let us read it \(403 Forbidden\): there is no such image, or it needs a login"),
        (answers(503), "a/b:1: HOST answers 503 Service Unavailable$"),
        (answers(307, location="/v2/a/b/manifests/1"), "HOST redirects more than 5 times"),
        (answers(307, location="http://registry.example/x"), "sends us to http://registry.example; expected"),
        (answers(307, location="https://user@registry.example/x"), "expected another machine, by https and without"),
        (answers(307, location="file:///etc/passwd"), "sends us to file://; expected"),
        (answers(307, location="https://[/x"), "a/b:1: HOST names an address that is none"),
        (lambda request: request.manifest(kind="text/html"), "HOST answers with text/html, which is not a manifest"),
        (lambda request: request.manifest(stated="sha256:12"), "states the digest 'sha256:12', which is not one by"),
        (lambda request: request.manifest(stated=ABSENT), f"states the digest {ABSENT}, and its manifest has sha256:"),
        (lambda request: request.manifest(body=bytes(5 * 2**20)), "answers with more than 4194304 bytes"),
        (lambda request: request.answer(200, content_length="-1"), "HOST answers with text/plain"),
        (lambda request: request.wfile.write(b"HTTP/1.1 nonsense\r\n\r\n") and None, "HOST does not answer"),
        (lambda request: request.answer(401), "a/b:1: HOST needs a login"),
    ],
)
def test_what_a_registry_must_not_answer(
    respond: Callable[[Request], None], message: str, script: Any, registry: Registry
) -> None:
    registry.respond = respond
    with pytest.raises(script.Mistake, match=message.replace("HOST", registry.host)):
        script.Registries({}).digest("a/b", "1")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"{}", "answers without a token"),
        (b"[" * 100_000, "answers without a token"),
        (b'{"token": "a\\r\\nX-Header: b"}', "answers without a token"),
        (b'{"token": 5}', "answers without a token"),
        (b" " * 5 * 2**20, "more than 4194304 bytes"),
    ],
)
def test_what_a_token_server_must_not_answer(reply: bytes, message: str, script: Any, registry: Registry) -> None:
    registry.token, registry.token_reply = "secret", reply
    with pytest.raises(script.Mistake, match=message):
        script.Registries({}).digest("a/b", "1")


@pytest.mark.parametrize(
    "realm", ["http://auth.example/token", "https://user:word@auth.example/", "ftp://auth.example"]
)
def test_a_token_is_not_fetched_from_an_unsafe_place(realm: str, script: Any, registry: Registry) -> None:
    registry.token, registry.challenge = "secret", f'Bearer realm="{realm}"'
    with pytest.raises(script.Mistake, match="expected another machine, by https and without a user") as caught:
        script.Registries({}).digest("a/b", "1")
    assert "word@" not in str(caught.value)


def test_a_registry_elsewhere_is_asked_by_https_and_does_not_send_us_to_this_machine(script: Any) -> None:
    for here in ("http://127.0.0.1", "https://127.1.2.3", "https://0.0.0.0", "https://[::1]", "https://localhost."):
        with pytest.raises(script.Mistake, match=f"sends us to {here.replace('[', '').replace(']', '')}"):
            script._check_url(f"{here}:80/x", is_from_here=False)
    script._check_url("https://registry.example/x", is_from_here=False)
    asked: list[str] = []

    def request(method: str, url: str, *_: str) -> Any:
        asked.append(url)
        return script.Answer(404, None, b"")

    registries = script.Registries({})
    registries._request = request
    with pytest.raises(script.Mistake, match="no such image"):
        registries.digest("registry.example/a", "1")
    assert asked == ["https://registry.example/v2/a/manifests/1"]


def test_an_answer_that_takes_too_long_is_given_up(script: Any, registry: Registry) -> None:
    script.WHOLE_S = -1.0
    with pytest.raises(script.Mistake, match="takes more than -1 s for one answer"):
        script.Registries({}).digest("a/b", "1")


def test_a_registry_that_is_away_is_named(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Server(Answering)) as gone:
        host = gone.address.removeprefix("http://")
    folder = folder_of(tmp_path, f"image: {host}/a:1@{ABSENT}\n---\nimage: b:1\n")
    assert script.main([str(folder)]) == 1
    assert f"{host} does not answer (" in capsys.readouterr().err
    assert script.main([str(folder), "--check"]) == 3  # what is not pinned is certain
    (folder / "compose.yaml").write_text(f"image: {host}/a:1@{ABSENT}\n")
    assert script.main([str(folder), "--check"]) == 1


def test_a_folder_that_is_not_there_is_named(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'none'}: there is no such folder\n"
