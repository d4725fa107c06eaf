"""Settings: precedence, origins, and every mistake told at once with its place and remedy."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from adawise.errors import SettingsError
from adawise.settings import KafkaSettings, Reading, Settings, read
from adawise.settings.describe import GROUPS, SETTINGS, environment_name, expected, flag_name, is_secret, members
from adawise.settings.sources import Given, Origin

PAIR = frozenset({"model", "search"})


def read_in(
    folder: Path,
    file: str | bytes = "",
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    uses: frozenset[str] = frozenset(),
) -> Reading:
    if file:
        (folder / "adawise.toml").write_bytes(file.encode() if isinstance(file, str) else file)
    given_flags = [Given(name, value, Origin("flag", flag_name(name))) for name, value in (flags or {}).items()]
    return read(given_flags, environ=environ or {}, folder=folder, uses=uses)


def message_of(reading: Reading) -> str:
    with pytest.raises(SettingsError) as caught:
        reading.checked()
    return str(caught.value)


def test_defaults_hold_where_nothing_is_given(tmp_path: Path) -> None:
    reading = read_in(tmp_path)
    assert reading.checked() == Settings()
    assert {origin.source for origin in reading.origins.values()} == {"default"}


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = "[kafka]\ntopic = 'f'\ngroup = 'f'\nclient_id = 'f'\n"
    environ = {"ADAWISE_KAFKA__TOPIC": "e", "ADAWISE_KAFKA__GROUP": "e", "PATH": "/bin"}
    reading = read_in(tmp_path, file, environ, {"kafka.topic": "g"})
    kafka = reading.checked().kafka
    assert (kafka.topic, kafka.group, kafka.client_id, kafka.on_gap) == ("g", "e", "f", "fail")
    assert [str(reading.origins[f"kafka.{name}"]) for name in ("topic", "group", "client_id", "on_gap")] == [
        "flag --kafka.topic",
        "env ADAWISE_KAFKA__GROUP",
        "adawise.toml line 4",
        "default",
    ]


@pytest.mark.parametrize("value", ["", "none"])
def test_none_the_default_of_blocks_in_0_3_is_read_as_all(value: str, tmp_path: Path) -> None:
    for reading in (
        read_in(tmp_path, environ={"ADAWISE_FINETUNE__BLOCKS": value}),
        read_in(tmp_path, flags={"finetune.blocks": value}),
    ):
        assert reading.checked().finetune.blocks == "all"


def test_every_mistake_of_every_source_is_told_at_once(tmp_path: Path) -> None:
    message = message_of(
        read_in(
            tmp_path,
            "[kafka]\ntopik = 'x'\n[batch]\nimages = 257\n",
            {"ADAWISE_SEARCH__ALPHA": "1.5", "ADAWISE_SINC__ROOT": "x"},
            {"kafka.topic": "no spaces", "search.budget": "0"},
            uses=PAIR,
        )
    )
    for line in (
        "kafka.topik  (adawise.toml line 2)",
        "did you mean kafka.topic (topic under [kafka])?",
        "batch.images = 257  (adawise.toml line 4)\n      expected a whole number from 1 to 256",
        "search.alpha = '1.5'  (env ADAWISE_SEARCH__ALPHA)\n      expected a number from 0 to 1",
        "sinc.root  (env ADAWISE_SINC__ROOT)\n      there is no such setting; did you mean ADAWISE_SINK__ROOT?",
        "kafka.topic = 'no spaces'  (flag --kafka.topic)",
        "search.budget = '0'  (flag --search.budget)",
        "model.theta_0  (not set)",
        "--model.theta-1 or ADAWISE_MODEL__THETA_1 or theta_1 under [model] in adawise.toml",
        "model.classes  (not set)",
    ):
        assert line in message
    assert message.startswith("9 things to correct")


def test_a_wrong_value_is_told_even_if_a_stronger_source_replaces_it(tmp_path: Path) -> None:
    reading = read_in(tmp_path, "[search]\nbudget = 0\n", {"ADAWISE_SEARCH__BUDGET": "3"})
    assert [(mistake.name, mistake.origin) for mistake in reading.mistakes] == [
        ("search.budget", "adawise.toml line 2")
    ]


@pytest.mark.parametrize("name", [name for name, field in SETTINGS.items() if not is_secret(field)])
def test_a_wrong_type_says_what_is_allowed(name: str, tmp_path: Path) -> None:
    reading = read_in(tmp_path, flags={name: object()})
    (mistake,) = reading.mistakes
    assert mistake.problem.startswith(f"expected {expected(SETTINGS[name])}")


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_described_and_every_number_bounded(name: str) -> None:
    field = SETTINGS[name]
    assert field.description
    kinds, bounds = members(field.annotation)
    if {int, float} & set(kinds):
        limits = [*field.metadata, *bounds]
        assert any(hasattr(item, "ge") or hasattr(item, "gt") for item in limits)
        assert any(hasattr(item, "le") for item in limits)


@pytest.mark.parametrize("name", GROUPS)
def test_groups_are_frozen_and_closed(name: str) -> None:
    group: Any = Settings()
    for part in name.split("."):
        group = getattr(group, part)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(group, next(iter(type(group).model_fields)), None)
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(group)(no_such=1)


def test_a_file_that_is_not_toml_is_told_with_line_and_column_and_nothing_is_called_missing(tmp_path: Path) -> None:
    reading = read_in(tmp_path, "[kafka]\ntopic = \n", uses=PAIR)
    (mistake,) = reading.mistakes
    assert "line 2, column 9" in mistake.problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[kafka]\ntopic = '\xff'\n", "byte 17 is not UTF-8"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b"[search]\nseed = " + b"1" * 5000, "it is not TOML"),
        (b"[kafka]\ntopic = 'a'\ntopic = 'b'\n", "it is not TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_mistake(content: bytes, problem: str, tmp_path: Path) -> None:
    (mistake,) = read_in(tmp_path, content).mistakes
    assert problem in mistake.problem


def test_a_file_asked_for_must_exist_and_be_a_file(tmp_path: Path) -> None:
    missing = read(environ={"ADAWISE_CONFIG": "other.toml"}, folder=tmp_path)
    assert "there is no such file" in message_of(missing)
    (tmp_path / "folder.toml").mkdir()
    assert "cannot be read" in message_of(read(environ={}, folder=tmp_path, config="folder.toml"))


def test_the_flag_for_the_file_wins_over_the_variable_over_the_current_folder(tmp_path: Path) -> None:
    for name in ("adawise", "variable", "flag"):
        (tmp_path / f"{name}.toml").write_text(f"[kafka]\ntopic = '{name}'\n")
    environ = {"ADAWISE_CONFIG": "variable.toml"}
    assert read(environ={}, folder=tmp_path).settings.kafka.topic == "adawise"
    assert read(environ=environ, folder=tmp_path).settings.kafka.topic == "variable"
    reading = read(environ=environ, folder=tmp_path, config=str(tmp_path / "flag.toml"))
    assert (reading.settings.kafka.topic, str(reading.origins["kafka.topic"])) == ("flag", "flag.toml line 2")


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("# c\nsearch.alpha = 2\n", 2),
        ("search = {budget = 1,  alpha = 2}\n", 1),
        ("[kafka]\ngroup = '''\nalpha = 1\n[search]\n'''\n[search]  # here\n'alpha' = 2\n", 7),
        ('[ "search" ]\r\n\r\nalpha = 2\r\n', 3),
        ("\ufeff[search]\nalpha = 2\n", 2),
    ],
)
def test_a_mistake_in_the_file_names_its_line(file: str, line: int, tmp_path: Path) -> None:
    (mistake,) = read_in(tmp_path, file).mistakes
    assert (mistake.name, mistake.origin) == ("search.alpha", f"adawise.toml line {line}")


@pytest.mark.parametrize(
    ("file", "environ", "problem"),
    [
        ("kafka = 'x'\n", {}, "expected a table [kafka], got str"),
        ("[kafka.topic]\nx = 1\n", {}, "expected 1 to 249"),
        ("[serch]\nx = 1\n", {}, "did you mean [search]?"),
        ("[kafka.securty]\nx = 1\n", {}, "did you mean [kafka.security]?"),
        ("[[kafka]]\ntopic = 'x'\n", {}, "expected a table [kafka], got list"),
        ("[zzz]\nx = 1\n", {}, "there are [kafka], [kafka.security], [model]"),
        ("topic = 'x'\n", {}, "did you mean kafka.topic"),
        ("[batch]\nmax_images = 8\n", {}, "did you mean batch.images (images under [batch])?"),
        ("", {"ADAWISE_BATCH__MAX_IMAGES": "8"}, "did you mean ADAWISE_BATCH__IMAGES?"),
        ("", {"ADAWISE_KAFKA__DEAD_LETER_TOPIC": "x"}, "did you mean ADAWISE_KAFKA__DEAD_LETTER_TOPIC?"),
        ("[http]\nprobe_port = 1\n", {}, "did you mean http.probes_port (probes_port under [http])?"),
        ("", {"ADAWISE_KAFKA": "{}"}, "it is a group of settings"),
        ("", {"ADAWISE_TEST_BROKER": "kafka", "ADAWISE_TOPICS": "x"}, "did you mean ADAWISE_KAFKA__TOPIC?"),
        ("", {"ADAWISE_TOPIC": "x"}, "did you mean ADAWISE_KAFKA__TOPIC?"),
        ("", {"ADAWISE_KAFKA_TOPIC": "x"}, "did you mean ADAWISE_KAFKA__TOPIC?"),
        ("[search]\nbudget = true\n", {}, "got true or false"),
        ("[search]\nalpha = nan\n", {}, "expected a number from 0 to 1"),
        ("[sink]\nroot = 'ftp://bucket'\n", {}, "ftp:// is not supported"),
        ("[sink]\nroot = 'az:///prefix'\n", {}, "the container is missing"),
        ("[sink]\nroot = 's3://'\n", {}, "the bucket is missing"),
        ("[sink]\nroot = ' '\n", {}, "it is empty"),
        ("[model]\ndevice = 'cuda:x'\n", {}, "expected auto, cpu, cuda or cuda:NUMBER"),
        ("[model]\nchunk_rows = 0\n", {}, "expected a whole number from 1 to 4096 or auto"),
        ("[kafka]\nbootstrap_servers = 'a:1,b'\n", {}, "'b' is not HOST:PORT"),
        ("[kafka]\nbootstrap_servers = 'a:99999'\n", {}, "is not HOST:PORT"),
        ("[kafka]\norigin = '2026-11-25T08:00:00'\n", {}, "no time zone"),
        ("[kafka]\nmax_poll_interval_ms = 9000\n", {}, "at least session_timeout_ms (45000)"),
        ("[kafka]\ndead_letter_topic = 'frames'\n", {}, "would be read again"),
        ("[results]\nenabled = true\ntopic = 'frames'\n", {}, "whose messages are read as images"),
        ("[results]\nenabled = true\ntopic = 'frames.dlq'\n", {}, "the dead-letter topic"),
        (f"[results]\nenabled = true\n[kafka]\ntopic = '{'x' * 243}'\n", {}, "more than 249 characters"),
        ("[results]\nform = 'arrow'\n", {}, "set results.per to batch"),
        ("[[alerts.rules]]\nname = 'x'\nlabels = ['a']\n", {}, "results.enabled is false"),
        ("[[alerts.rules]]\nname = 'x'\n", {}, "rule 1 (x): labels: expected either labels or silent_after"),
        ("[[alerts.rules]]\nlabels = ['a']\n", {}, "rule 1: name: field required"),
        ("[[alerts.rules]]\nname = 'x'\nlabel = 'a'\nlabels = ['a']\n", {}, "label: there is no such field; there are"),
        ("[[alerts.rules]]\nname = 'x:y'\nlabels = ['a']\n", {}, "name: expected 1 to 100 of the characters"),
        ("[[alerts.rules]]\nname = 'x'\nlabels = ['a']\nof = 2\n", {}, "of: expected frames (3) or more"),
        ("[[alerts.rules]]\nname = 'x'\nsilent_after = '60'\n", {}, "silent_after: expected a duration such as 90s"),
        ("[[alerts.rules]]\nname = 'x'\nsilent_after = '0s'\n", {}, "silent_after: expected 1s or more"),
        (
            "[[alerts.rules]]\nname = 'x'\nsilent_after = '9s'\nframes = 2\n",
            {},
            "a rule with silent_after does not use it",
        ),
        (2 * "[[alerts.rules]]\nname = 'x'\nsilent_after = '9s'\n", {}, "the rule x is there twice"),
        ("[alerts]\nrules = 3\n", {}, "it is not a list of tables"),
        ("", {"ADAWISE_ALERTS__RULES": "nonsense"}, "it is not valid JSON"),
        ("", {"ADAWISE_ALERTS__RULES": '{"name": "x"}'}, "it is not a list of tables"),
        ("", {"ADAWISE_ALERTS__RULES": "[1]"}, "it is not a list of tables"),
        ("", {"ADAWISE_ALERTS__RULES": f"[{','.join(65 * ['{}'])}]"}, "at most 64"),
        ("[kafka]\nmax_batch_bytes = '4 MiB'\n", {}, "at least decode.max_message_bytes (8388608)"),
        ("[kafka]\non_unreadable = 'fail'\n", {}, "expected stop or skip"),
        ("[decode]\norientation = 'turn'\n", {}, "expected ignore or apply"),
        (
            "[decode]\ngrey16_range = '18000-7000'\n",
            {},
            "expected own, or LOW-HIGH: two levels from 0 to 65535: the first",
        ),
        ("[decode]\ngrey16_range = '0-65536'\n", {}, "which is at most 65535"),
        ("[decode]\ngrey16_range = '7000'\n", {}, "expected own, or LOW-HIGH"),
        ("", {"ADAWISE_DECODE__GREY16_RANGE": "7000--18000"}, "expected own, or LOW-HIGH"),
        ("[limits]\ninflight_mib = 16\n[decode]\nmax_message_bytes = '9 MiB'\n", {}, "it must be at least 18"),
    ],
)
def test_a_mistake_says_what_is_wrong(file: str, environ: dict[str, str], problem: str, tmp_path: Path) -> None:
    (mistake,) = read_in(tmp_path, file, environ).mistakes
    assert problem in mistake.problem


TOKENS = {
    "sasl_mechanism": "OAUTHBEARER",
    "oauth_token_endpoint": "https://login.example/token",
    "oauth_client_id": "worker",
    "oauth_client_secret": "s",
}


@pytest.mark.parametrize(
    ("security", "wrong"),
    [
        ({"protocol": "SASL_SSL"}, {"sasl_mechanism", "sasl_username", "sasl_password"}),
        ({"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": "u"}, {"sasl_password"}),
        ({"sasl_password": "x"}, {"sasl_password"}),
        ({"ssl_ca": "ca.pem"}, {"ssl_ca"}),
        ({"protocol": "SSL", "ssl_key": "key.pem"}, {"ssl_certificate"}),
        ({"protocol": "SSL", "ssl_key_password": "x"}, {"ssl_key"}),
        ({"protocol": "SSL", "ssl_ca": "ca.pem"}, set()),
        ({"protocol": "SSL", "ssl_certificate": "c.pem", "ssl_key": "k.pem", "ssl_key_password": "x"}, set()),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "p"}, set()),
        ({"protocol": "SASL_SSL", **TOKENS}, set()),
        ({"protocol": "SASL_SSL", **TOKENS, "oauth_scope": "frames:read", "oauth_ca": "ca.pem"}, set()),
        (
            {"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "sasl_password": "p"},
            {"oauth_token_endpoint", "oauth_client_id", "oauth_client_secret", "sasl_password"},
        ),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "oauth_function": "cloud.tokens:token"}, set()),
        ({"protocol": "SASL_SSL", **TOKENS, "oauth_function": "cloud.tokens:token"}, set(TOKENS) - {"sasl_mechanism"}),
        (
            {"protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "u", "oauth_scope": "s"},
            {"sasl_password", "oauth_scope"},
        ),
        ({"oauth_client_secret": "x"}, {"oauth_client_secret"}),
    ],
)
def test_credentials_are_complete_and_used(security: dict[str, str], wrong: set[str], tmp_path: Path) -> None:
    environ = {environment_name(f"kafka.security.{name}"): value for name, value in security.items()}
    reading = read_in(tmp_path, environ=environ)
    assert {mistake.name for mistake in reading.mistakes} == {f"kafka.security.{name}" for name in wrong}


def test_a_group_with_a_wrong_value_is_not_judged_as_a_whole(tmp_path: Path) -> None:
    file = (
        "[kafka.security]\nprotocol = 'SASL_SSL'\nsasl_mechanism = 'NTLM'\nsasl_username = 'u'\nsasl_password = 'p'\n"
    )
    (mistake,) = read_in(tmp_path, file).mistakes
    assert mistake.problem == "expected PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"


def test_no_message_holds_a_secret(tmp_path: Path) -> None:
    secret = "hunter2"
    file = f"[kafka.security]\nsasl_pasword = '{secret}'\nssl_key_password = ['{secret}']\nsasl_password = '{secret}'\n"
    environ = {"ADAWISE_KAFKA__SECURITY__SASL_PASSWRD": secret, "ADAWISE_KAFKA__SECURITY__SASL_PASSWORD": secret}
    reading = read_in(tmp_path, file, environ, {"kafka.security.ssl_key_password": secret})
    message = message_of(reading)
    assert "sasl_pasword" in message
    assert "ssl_key_password = **********" in message
    assert secret not in message
    assert secret not in repr(reading)


@pytest.mark.parametrize("url", ["http://login.example/token", "ftp://login.example/", "https://", "https://a@b/"])
def test_a_token_endpoint_is_encrypted_unless_it_is_on_this_machine(url: str, tmp_path: Path) -> None:
    variable = "ADAWISE_KAFKA__SECURITY__OAUTH_TOKEN_ENDPOINT"
    mistakes = read_in(tmp_path, environ={variable: url}).mistakes
    assert mistakes[0].problem.startswith("expected a URL such as https://HOST/PATH; http:// only for this machine: ")
    (unused,) = read_in(tmp_path, environ={variable: "http://127.0.0.1:8080/token"}).mistakes
    assert "does not use it" in unused.problem


GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "security.md").read_text()


@pytest.mark.parametrize("table", re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL))
def test_every_table_of_the_guide_is_complete(table: str, tmp_path: Path) -> None:
    for name in re.findall(r"/run/secrets/([\w-]+)", table):
        (tmp_path / name).write_text("hunter2\n")
    reading = read_in(tmp_path, table.replace("/run/secrets/", f"{tmp_path}/"))
    assert reading.mistakes == []
    assert reading.checked().kafka.security.protocol != "PLAINTEXT"


SECRETS = [name for name, field in SETTINGS.items() if is_secret(field)]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_read_from_the_file_that_a_setting_names(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2 and sixteen more\n")
    table, _, key = name.rpartition(".")
    for file, environ, where in (
        ("", {environment_name(f"{name}_file"): "secret"}, f"env {environment_name(name)}_FILE"),
        (f"[{table}]\n{key}_file = 'secret'\n", {}, "adawise.toml line 2"),
    ):
        reading = read_in(tmp_path, file, environ)
        assert str(reading.origins[name]) == where
        assert not [mistake for mistake in reading.mistakes if "secret cannot be read" in mistake.problem]
        assert "hunter2" not in repr(reading)


def test_what_a_file_of_a_secret_holds_is_the_secret_without_the_end_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"hunter2 and sixteen more\r\n")
    file = f"[http]\ntoken_file = '{tmp_path / 'token'}'\n"
    token = read_in(tmp_path, file).settings.http.token
    assert token is not None
    assert token.get_secret_value() == "hunter2 and sixteen more"
    stronger = read_in(tmp_path, file, {"ADAWISE_HTTP__TOKEN": "another one of so many"})
    assert stronger.checked().http.token == SecretStr("another one of so many")


@pytest.mark.parametrize(
    ("file", "environ", "name", "problem"),
    [
        ("", {"ADAWISE_HTTP__TOKEN_FILE": "gone"}, "http.token_file", "cannot be read: No such file or directory"),
        ("", {"ADAWISE_HTTP__TOKEN_FILE": "."}, "http.token_file", "cannot be read: Is a directory"),
        ("", {"ADAWISE_HTTP__TOKEN_FILE": "empty"}, "http.token_file", "the file is empty"),
        ("", {"ADAWISE_HTTP__TOKEN_FILE": ""}, "http.token_file", "expected the name of a file"),
        ("", {"ADAWISE_HTTP__TOKEN_FILE": "binary"}, "http.token_file", "not UTF-8"),
        ("", {"ADAWISE_HTTP__TOKEN_FILE": "/dev/zero"}, "http.token_file", "it is not a regular file"),
        ("", {"ADAWISE_HTTP__TOKEN_FILE": "large"}, "http.token_file", "it has more than 65,536 bytes"),
        ("http.token_file = 'large'\n", {}, "http.token_file", "it has more than 65,536 bytes"),
        ("[http]\ntoken_file = 3\n", {}, "http.token_file", "expected the name of a file"),
        ("[http]\ntoken_file = 'fine'\ntoken = 'of sixteen or more'\n", {}, "http.token_file", "is set too"),
        ("", {"ADAWISE_HTTP__TOKEN_FILE": "short"}, "http.token", "fewer than 16"),
        ("", {"ADAWISE_KAFKA__TOPIC_FILE": "fine"}, "kafka.topic_file", "there is no such setting"),
    ],
)
def test_a_file_of_a_secret_that_cannot_be_read_is_told(
    file: str, environ: dict[str, str], name: str, problem: str, tmp_path: Path
) -> None:
    files = {"empty": b"\n", "binary": b"\xff\xfe", "fine": b"hunter2" * 3, "short": b"hunter2", "large": b"x" * 65_537}
    for other, data in files.items():
        (tmp_path / other).write_bytes(data)
    (mistake,) = read_in(tmp_path, file, environ).mistakes
    assert mistake.name == name
    assert problem in mistake.problem
    assert "hunter2" not in str(mistake)


@pytest.mark.parametrize("word", ["none", ""])
def test_none_takes_back_what_the_file_sets(word: str, tmp_path: Path) -> None:
    file = "[kafka]\nstatic_member = 'a'\n"
    assert read_in(tmp_path, file).settings.kafka.static_member == "a"
    reading = read_in(tmp_path, file, {"ADAWISE_KAFKA__STATIC_MEMBER": word})
    assert reading.checked().kafka.static_member is None


LOGIN = "[kafka.security]\nprotocol = 'SASL_SSL'\nsasl_mechanism = 'PLAIN'\nsasl_username = 'u'\n"


@pytest.mark.parametrize("password", ["none", " spaces around ", "  ", "\ttab"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_every_character_of_a_password_counts_but_the_end_of_its_line(password: str, end: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes((password + end).encode())
    variable = "ADAWISE_KAFKA__SECURITY__SASL_PASSWORD"
    for file, environ in (
        (LOGIN, {variable: password + end}),
        (LOGIN, {f"{variable}_FILE": "password"}),
        (LOGIN + "sasl_password_file = 'password'\n", {}),
        (LOGIN + f"sasl_password = {json.dumps(password + end)}\n", {}),
    ):
        found = read_in(tmp_path, file, environ).checked().kafka.security.sasl_password
        assert found is not None
        assert found.get_secret_value() == password


def test_an_empty_password_takes_back_what_the_file_sets_and_so_does_none_for_the_token(tmp_path: Path) -> None:
    file = f"[kafka.security]\nssl_key_password = 'p'\n[http]\ntoken = '{'t' * 16}'\n"
    environ = {"ADAWISE_KAFKA__SECURITY__SSL_KEY_PASSWORD": "", "ADAWISE_HTTP__TOKEN": "none"}
    settings = read_in(tmp_path, file, environ).checked()
    assert (settings.kafka.security.ssl_key_password, settings.http.token) == (None, None)


@pytest.mark.parametrize("objective", ["calibrated_entropy", "relative", "atc"])
def test_an_objective_beyond_entropy_needs_a_card_where_alpha_is_searched(tmp_path: Path, objective: str) -> None:
    flags = {"search.objective": objective}
    assert not read_in(tmp_path, flags=flags, uses=frozenset({"kafka"})).mistakes
    names = [mistake.name for mistake in read_in(tmp_path, flags=flags, uses=PAIR).mistakes]
    assert names == ["model.theta_0", "model.theta_1", "model.classes", "search.objective"]


@pytest.mark.parametrize("objective", ["auto", "entropy"])
def test_auto_and_entropy_do_without_a_card(tmp_path: Path, objective: str) -> None:
    assert read_in(tmp_path).settings.search.objective == "auto"
    mistakes = read_in(tmp_path, flags={"search.objective": objective}, uses=PAIR).mistakes
    assert "search.objective" not in [mistake.name for mistake in mistakes]


def test_a_pipe_is_no_file_to_be_read_and_what_may_not_be_looked_at_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    flags = dict.fromkeys(("model.theta_0", "model.theta_1", "model.classes"), "./pipe")

    def problems() -> set[str]:
        return {mistake.problem for mistake in read_in(tmp_path, flags=flags, uses=PAIR).mistakes}

    assert problems() == {f"expected a file, but {tmp_path}/pipe is not one; correct the path"}

    def forbidden(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", forbidden)
    assert problems() == {f"{tmp_path}/pipe cannot be read: Permission denied; give this user the right to"}


def test_files_that_a_command_will_read_must_exist(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "f").mkdir()
    flags = {
        "model.theta_0": "nowhere/zero.pt",
        "model.theta_1": "laion2b_s34b_b79k",  # a tag: only open_clip knows
        "model.architecture": "local-dir:gone",
        "model.classes": "classes.txt",
        "model.templates": "f",
        "model.card": "card.json",
    }
    problems = {mistake.name: mistake.problem for mistake in read_in(tmp_path, flags=flags, uses=PAIR).mistakes}
    assert problems == {
        "model.architecture": f"there is no folder {tmp_path}/gone; correct the path",
        "model.theta_0": f"there is no file {tmp_path}/nowhere/zero.pt; correct the path",
        "model.templates": f"expected a file, but {tmp_path}/f is not one; correct the path",
        "model.card": f"there is no file {tmp_path}/card.json; correct the path",
    }
    making_a_card = read_in(tmp_path, flags=flags, uses=frozenset({"model"}))
    assert "model.card" not in {mistake.name for mistake in making_a_card.mistakes}


def open_clip_folder(path: Path, **changes: object) -> str:
    """A `local-dir:` folder with a small config; `changes` by dotted name, with `__` for the dot."""
    path.mkdir()
    config: dict[str, Any] = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "layers": 12},
    }
    for name, value in changes.items():
        *groups, key = name.split("__")
        reduce(lambda inner, group: inner[group], groups, config)[key] = value
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return f"local-dir:{path.name}"


def model_mistakes(folder: Path, **model: str) -> dict[str, str]:
    flags = {f"model.{name}": value for name, value in model.items()}
    mistakes = read_in(folder, flags=flags, uses=frozenset({"finetune"})).mistakes
    return {mistake.name: mistake.problem for mistake in mistakes}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"vision_cfg__timm_model_name": "hf-hub:org/tower"}, "vision_cfg.timm_model_name"),
        ({"vision_cfg__timm_model_name": " HF_HUB:org/tower"}, "vision_cfg.timm_model_name"),
        ({"text_cfg__hf_tokenizer_name": "hf-hub:org/words"}, "text_cfg.hf_tokenizer_name"),
        ({"text_cfg__hf_model_name": "roberta-base"}, "text_cfg.hf_model_name"),
        ({"text_cfg__tokenizer_kwargs": {"deep": ["hf-hub:org/words"]}}, "text_cfg.tokenizer_kwargs.deep.0"),
    ],
)
def test_a_folder_whose_config_names_a_model_hub_is_refused(
    change: dict[str, object], key: str, tmp_path: Path
) -> None:
    name = open_clip_folder(tmp_path / "theta_0", **change)
    found = model_mistakes(tmp_path, theta_0=name)
    assert f"sets {key} to " in found["model.theta_0"]
    assert "on a model hub; use a folder that has all files" in found["model.theta_0"]
    assert "model.architecture" in model_mistakes(tmp_path, theta_0="tag", architecture=name)


def test_an_architecture_that_a_folder_contradicts_is_a_mistake(tmp_path: Path) -> None:
    name = open_clip_folder(tmp_path / "theta_0")
    other = open_clip_folder(tmp_path / "other", vision_cfg__layers=3, text_cfg__hf_tokenizer_name="org/words")
    for architecture in ("ViT-L-14", other):
        found = model_mistakes(tmp_path, theta_0=name, architecture=architecture)
        assert found.keys() == {"model.architecture"}
        assert "local-dir:theta_0 of model.theta_0; leave it out" in found["model.architecture"]
    assert "its vision_cfg.layers is 3, but 12 in" in found["model.architecture"]
    assert "its embed_dim is 512" not in found["model.architecture"]
    for architecture in ("ViT-B-32", "ViT-B/32", name):
        assert not model_mistakes(tmp_path, theta_0=name, architecture=architecture)
    assert not model_mistakes(tmp_path, theta_0=other), "the default is not what somebody said"
    assert model_mistakes(tmp_path, theta_0=other, architecture="ViT-B-32").keys() == {"model.architecture"}


@pytest.mark.parametrize("text", [b"an empty street\n", b"\r\n\n street \n"])
def test_a_file_of_one_class_is_a_mistake(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(text)
    found = model_mistakes(tmp_path, theta_0="tag", classes="classes.txt")
    assert "has one class, '" in found["model.classes"]
    assert "street', which every image would get" in found["model.classes"]
    (tmp_path / "classes.txt").write_bytes(b"\xff\n")
    assert not model_mistakes(tmp_path, theta_0="tag", classes="classes.txt"), "reading it says more"


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"model_cfg": 3}', "[" * 100_000, "\x00", '{"text_cfg": null}'])
def test_a_config_that_cannot_be_read_is_left_to_the_loader(text: str, tmp_path: Path) -> None:
    name = open_clip_folder(tmp_path / "theta_0")
    (tmp_path / "theta_0" / "open_clip_config.json").write_text(text)
    assert not model_mistakes(tmp_path, theta_0=name, architecture="ViT-L-14")


def test_values_come_out_in_their_types(tmp_path: Path) -> None:
    file = "[kafka]\norigin = 2026-11-25T08:00:00Z\n[decode]\nmax_message_bytes = '4 MiB'\n[model]\ncard = '~/c.json'\n"
    environ = {"ADAWISE_MODEL__CHUNK_ROWS": "32", "adawise_kafka__dead_letters": "false"}
    settings = read_in(tmp_path, file, environ).checked()
    assert settings.kafka.origin_ms == 1_795_593_600_000
    assert settings.decode.max_message_bytes == 4 * 2**20
    assert settings.model.card == Path.home() / "c.json"
    assert settings.model.chunk_rows == 32
    assert settings.kafka.dead_letters is False


def test_the_dead_letter_topic_follows_the_topic() -> None:
    assert KafkaSettings(topic="yard").dead_letters_to == "yard.dlq"
    assert KafkaSettings(topic="yard", dead_letter_topic="bad").dead_letters_to == "bad"
    assert KafkaSettings().origin_ms is None


@given(name=st.sampled_from(sorted(SETTINGS)), value=st.text(max_size=40))
def test_any_text_in_the_environment_gives_settings_or_a_mistake(name: str, value: str) -> None:
    variable = environment_name(name)
    reading = read(environ={variable: value}, folder=Path("nowhere"))
    assert reading.mistakes or str(reading.origins[name]) == f"env {variable}"


_toml_scalar = st.one_of(
    st.booleans().map(lambda value: str(value).lower()),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["[]", "{}", "['a']", "1979-05-27", "07:32:00", "1979-05-27T07:32:00", '"none"', '""']),
)


@given(name=st.sampled_from(sorted([*SETTINGS, *GROUPS])), value=_toml_scalar)
def test_any_value_in_the_file_gives_settings_or_a_mistake(
    name: str, value: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("file")
    reading = read_in(folder, f"{name} = {value}\n")
    if reading.mistakes:
        assert {mistake.origin for mistake in reading.mistakes} <= {"adawise.toml line 1", "not set", "adawise.toml"}
    else:
        assert name in GROUPS or str(reading.origins[name]) == "adawise.toml line 1"


@pytest.mark.parametrize(
    ("name", "given", "output"),
    [
        ("mean", "123.7,116.3,103.5", "three numbers from 0 to 1.*divide levels by 255"),
        ("mean", [0.5, 0.5], r"model\.mean = .*expected three numbers"),
        ("mean", "red", "expected three numbers"),
        ("mean", [-0.5, 0.5, 0.5], "expected three numbers"),
        ("std", [0.5, 0.0, 0.5], "a deviation of 0 would be a divisor"),
        ("std", "nan,1,1", "expected three numbers"),
        ("std", True, "expected three numbers"),
        ("resize_mode", "crop", "expected shortest, squash or longest"),
        ("quick_gelu", "maybe", "expected true or false"),
    ],
)
def test_preprocessing_that_cannot_be_is_refused(tmp_path: Path, name: str, given: object, output: str) -> None:
    value = str(given).lower() if isinstance(given, list | bool) else repr(given)
    assert re.search(output, message_of(read_in(tmp_path, f"[model]\n{name} = {value}\n")), re.DOTALL)


def test_three_channels_are_one_value_in_files_and_flags(tmp_path: Path) -> None:
    file = "[model]\nmean = [0.5, 0.25, 0.125]\nquick_gelu = false\n"
    for flag in ("0.5,0.5,1", "[0.5, 0.5, 1]", " 0.5 , .5, 1.0"):
        model = read_in(tmp_path, file, {}, {"model.std": flag}).checked().model
        assert model.preprocessing == {"mean": (0.5, 0.25, 0.125), "std": (0.5, 0.5, 1.0), "quick_gelu": False}
    assert read_in(tmp_path, file, {"ADAWISE_MODEL__MEAN": "none"}).checked().model.mean is None
