"""What every test can ask for: a tiny pair, a broker (started when the first test asks for it) and topics on it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from _pytest.warnings import catch_warnings_for_item
from kafka import KafkaAdminClient

# As the command line does (`adawise.__main__`): threads of two test processes would spin against each other. One each,
# for what the tests compute is so small that a second thread costs more than it does; child processes inherit both.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("FORCE_COLOR", None)  # what is printed is compared; some machines of CI set it

from hypothesis import is_hypothesis_test, settings

import adawise
from adawise.kafka import repairs
from tests import deadlines, tiers
from tests.brokers import (
    CAPABILITIES,
    FORCE,
    KINDS,
    ApacheKafka,
    Broker,
    MakeTopic,
    Unavailable,
    create_topic,
    embedded,
    fresh_name,
    running,
    shared_kafka,
    stop_shared,
)
from tests.tiers import ROOT

pytest_plugins = ["tests.times"]

# How many examples of each property a tier tries; `--hypothesis-profile` chooses. No deadline: the machine may be busy.
for _tier, _examples in (("test", 25), ("check", 100), ("soak", 500)):
    settings.register_profile(
        _tier, settings.get_profile("ci" if os.environ.get("CI") else "default"), max_examples=_examples, deadline=None
    )
settings.load_profile("test")

if TYPE_CHECKING:
    from adawise.clip.load import CheckpointPair
    from tests.kafka.secured import Secured
    from tests.models import PairFolder

_STARTED = pytest.StashKey[list[str]]()
_SHARED = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
_BROKERS = {"broker", "embedded_broker", "three_brokers", "secured_broker"}
# Files of tests that share what takes long to start: a recorded street, torch's optimisers, the library that draws
# pages, three brokers, a broker with logins.
_SHARING = (
    ("tests/replay/",),
    ("tests/lab/finetune/",),
    ("tests/lab/evaluate/page/", "tests/drift/page/"),
    ("tests/chaos/test_chaos.py", "tests/kafka/test_three_brokers.py", "tests/doctor/test_broker.py"),
    ("tests/kafka/test_secured.py", "tests/cli/test_secured.py", "tests/cli/test_planted_secrets.py"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parts", metavar="PARTS", help="only these parts of the second tier: names with commas, or all")


def pytest_configure(config: pytest.Config) -> None:
    if not Path(adawise.__file__).is_relative_to(ROOT / "pipeline"):
        raise pytest.UsageError(
            f"these are the tests of {ROOT}, and the environment has the adawise of {Path(adawise.__file__).parent}: "
            "`rm -rf .venv`, then `make quick` makes one of its own"
        )
    config.stash[_STARTED] = []
    if requested := config.getoption("--parts"):
        try:
            chosen = tiers.choose(requested)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from error
        if not hasattr(config, "workerinput"):
            others = tiers.other_options(config.invocation_params.args)
            config.pluginmanager.register(tiers.Recorder(chosen, others=others), "recorder-of-parts")
    if config.option.timeout:
        config.option.timeout = deadlines.scaled(config.option.timeout)
    config.addinivalue_line(
        "markers", "needs(*capabilities): skip on a broker that cannot do these (names in tests/brokers.py)"
    )
    config.addinivalue_line("markers", "broker: may start a broker; set here")
    config.addinivalue_line("markers", "slow: takes seconds by itself; not in `make quick`")
    config.addinivalue_line("markers", "examples: a property that hypothesis tries on examples; set here")
    config.addinivalue_line("markers", "check(part): second tier, `make check`; the parts are in tests/tiers.py")
    config.addinivalue_line(
        "markers", "cases(part, every): of its cases one in `every` is in the first tier, the others in that part"
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import the files of tests from another place on in each process of xdist.

    In a fresh clone, rewriting the asserts of all files and compiling them takes half a minute. Processes that went
    through the files in one order would each do all of it; now each finds what the others have written.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args_source is not session.config.ArgsSource.TESTPATHS:
        return
    files = sorted(file.relative_to(ROOT) for file in (ROOT / "tests").rglob("test_*.py"))
    begin = int(worker["workerid"].removeprefix("gw")) * len(files) // worker["workercount"]
    for file in (*files[begin:], *files[:begin]):
        # What fails here, a warning included, is imported again by the collection, which reports it.
        with (
            contextlib.suppress(Exception, pytest.skip.Exception),
            catch_warnings_for_item(session.config, session.config.hook, "collect", None),
        ):
            importlib.import_module(".".join(file.with_suffix("").parts))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send what was started to the controller of xdist."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["started"] = session.config.stash[_STARTED]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give the processes of xdist one folder for the broker that they share."""
    stash = node.config.stash
    if _SHARED not in stash:
        stash[_SHARED] = tempfile.TemporaryDirectory(prefix="adawise-kafka-")
    node.workerinput["broker_folder"] = stash[_SHARED].name


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the broker that the processes of xdist shared."""
    if shared := config.stash.get(_SHARED, None):
        with shared as folder:
            stop_shared(Path(folder))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a process of xdist has started; one that crashed sent nothing."""
    node.config.stash[_STARTED] += getattr(node, "workeroutput", {}).get("started", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the brokers that the tests ran on."""
    if started := config.stash[_STARTED]:
        terminalreporter.section("brokers")
        for line in started:
            terminalreporter.write_line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`broker` marks every test that may start one, so that `make quick` can leave them out without a list."""
    _mark_examples_and_scale(items)
    tiers.divide_cases(items)
    _select_parts(config, items)
    for item in items:
        requested = getattr(item, "fixturenames", ())
        starts = hasattr(getattr(item, "module", None), ApacheKafka.__name__)  # by itself, not by a fixture
        if starts or not _BROKERS.isdisjoint(requested) or item.get_closest_marker("needs"):
            item.add_marker("broker")
    if hasattr(config, "workerinput"):  # one of xdist's processes
        places = mixed([(unit_of(item.nodeid), item.get_closest_marker("broker") is not None) for item in items])
        items.sort(key=lambda item: places[unit_of(item.nodeid)])


def _mark_examples_and_scale(items: list[pytest.Item]) -> None:
    """Mark the tests of hypothesis, and stretch time-outs of single tests by the factor of this run."""
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker(tiers.EXAMPLES)
        if deadlines.FACTOR != 1.0 and (mark := item.get_closest_marker("timeout")):
            item.add_marker(pytest.mark.timeout(deadlines.scaled(mark.args[0])), append=False)


def _select_parts(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the second tier that `--parts` names."""
    requested = config.getoption("--parts")
    if requested is not None:
        chosen = set(tiers.choose(requested))
        parts_of = {item: tiers.parts_of(item) for item in items}
        config.hook.pytest_deselected(items=[item for item in items if not parts_of[item] & chosen])
        items[:] = [item for item in items if parts_of[item] & chosen]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Send the parts of a test with its report, and what its broker cannot do: the controller of xdist has no items."""
    report = yield
    report.parts = sorted(tiers.parts_of(item))
    broker = getattr(item, "funcargs", {}).get("broker")
    report.broker_lacks = sorted(CAPABILITIES - broker.capabilities) if isinstance(broker, Broker) else []
    return report


def unit_of(nodeid: str) -> str:
    """What one process runs in one go: a file of tests, or all files that share what takes long to start."""
    file = nodeid.partition("::")[0]
    return next((sharing[0] for sharing in _SHARING if file.startswith(sharing)), file)


def mixed(tests: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """Each unit's place in the order, by the unit of each test and whether it may ask for a broker.

    Units that wait for a broker and units that compute take turns, so that the processor has work while a process
    waits. What is shared comes first, then files with few tests, which are the long ones: at the end all is short.
    """
    counts, waits = Counter[str](), set[str]()
    for unit, needs_broker in tests:
        counts[unit] += 1
        if needs_broker:
            waits.add(unit)
    shared = {files[0] for files in _SHARING}
    ordered = sorted(counts, key=lambda unit: (unit not in shared, counts[unit], unit))
    halves = [unit for unit in ordered if unit in waits], [unit for unit in ordered if unit not in waits]
    return {unit: number / len(half) for half in halves for number, unit in enumerate(half)}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As `--dist loadfile`, by units, in the order in which the tests were collected."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = unit_of
    return scheduler


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Text heads are kept beside the tests' own files, not in the developer's cache; child processes inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _threads_of_torch() -> Iterator[None]:
    """A command that runs in this process sets their number and with it the last bits of sums; not of the next test."""
    threads = torch.get_num_threads() if (torch := sys.modules.get("torch")) else None
    yield
    if threads and torch:
        torch.set_num_threads(threads)


@pytest.fixture
def logs_of_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For commands that run in this process: how it logs is left alone, and none of it is on the output proper."""
    monkeypatch.setattr("adawise.logs.configure", lambda level, form, **_: None)
    before = structlog.get_config()
    structlog.reset_defaults()  # an earlier test may have called it
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    yield
    structlog.configure(**before)
    logging.captureWarnings(capture=False)


@pytest.fixture(scope="session")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    """A tiny random pair on disk. Not to be changed by a test."""
    from tests.models import write_pair  # what it loads takes seconds

    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def pair(pair_folder: PairFolder) -> CheckpointPair:
    """The same through the program's own loader."""
    from tests.models import load

    return load(pair_folder)


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """The broker of this run: see tests/brokers.py for how it is chosen."""
    began = time.monotonic()
    kinds = dict(KINDS)
    if folder := getattr(pytestconfig, "workerinput", {}).get("broker_folder"):
        kinds["kafka"] = partial(shared_kafka, Path(folder))
    with running(kinds=kinds) as broker:
        pytestconfig.stash[_STARTED].append(f"{broker}, ready in {time.monotonic() - began:.1f} s")
        yield broker


@pytest.fixture(scope="session")
def embedded_broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """An embedded broker, whatever `broker` is: for what must work on it too."""
    began = time.monotonic()
    with embedded() as broker:
        pytestconfig.stash[_STARTED].append(f"{broker}, ready in {time.monotonic() - began:.2f} s")
        yield broker


@pytest.fixture(scope="session")
def three_brokers(pytestconfig: pytest.Config) -> Iterator[ApacheKafka]:
    """An Apache Kafka of three brokers, by Maven's jars, whatever `broker` is; any one of them may be killed."""
    repairs.install()  # or each connection that a killed broker refuses would leave a socket open, and a warning
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        try:
            kafka = stack.enter_context(ApacheKafka(brokers=3))
        except Unavailable as reason:
            pytest.skip(f"Apache Kafka by Maven cannot be had: {reason}")
        ready = f"three brokers at {kafka.bootstrap_servers}, ready in {time.monotonic() - began:.1f} s"
        pytestconfig.stash[_STARTED].append(ready)
        yield kafka


@pytest.fixture(scope="session")
def secured_broker(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """An Apache Kafka with TLS, logins and rules, by Maven's jars; see tests/kafka/secured.py."""
    from tests.kafka.secured import secured

    repairs.install()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(secured(tmp_path_factory.mktemp("secured")))
        except Unavailable as reason:
            pytest.skip(f"Apache Kafka by Maven cannot be had: {reason}")
        ready = f"secured, at {found.kafka.bootstrap_servers}, ready in {time.monotonic() - began:.1f} s"
        pytestconfig.stash[_STARTED].append(ready)
        yield found


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an Alertmanager with the shipped routes, and no alert of another module's tests."""
    from tests.deploy import fleet

    if "prometheus-alertmanager" in fleet.lacking():
        pytest.skip("no prometheus-alertmanager: apt-get install prometheus-alertmanager")
    with fleet.alertmanager(tmp_path_factory.mktemp("alertmanager")) as url:
        yield url


@pytest.fixture(autouse=True)
def _skip_what_the_broker_cannot(request: pytest.FixtureRequest) -> None:
    marks = list(request.node.iter_markers("needs"))
    if not marks:
        return
    broker: Broker = request.getfixturevalue("broker")
    needed = tuple(name for mark in marks for name in mark.args)
    if lacking := broker.lacks(needed):
        pytest.skip(f"{broker.name} lacks {', '.join(lacking)}; {FORCE}=kafka runs it on Apache Kafka")


@pytest.fixture
def topic(broker: Broker, request: pytest.FixtureRequest) -> Iterator[MakeTopic]:
    """Creates topics of fresh names (and `<name>.dlq` where asked), and deletes them after the test."""
    made: list[str] = []

    def make(partitions: int = 1, *, dead_letters: bool = False, configs: Mapping[str, str] | None = None) -> str:
        name = fresh_name(request.node.originalname)
        for each in (name, f"{name}.dlq") if dead_letters else (name,):
            create_topic(broker, each, partitions, configs)
            made.append(each)
        return name

    yield make
    if made:
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(",")) as admin:
            admin.delete_topics(made, raise_errors=False)  # a test may have deleted one
