"""Fixtures of every test: a real server, a namespace of its own, and the key-leak check.

A test that asks for `server_url` runs once for each kind of server; marks narrow that (see `kinds_for`).
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator

import pytest

from support.examples import load_profile
from support.leaks import check_namespace
from support.servers import FULL, ServerKind, Servers, kinds_for, one_of

load_profile()


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """What `-n auto` means: one more than there are cores, since much of what takes long waits for processes."""
    cores = yield
    return cores + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Those that may take long come first, or the last of them runs alone at the end.
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)
    if not FULL:
        reason = pytest.mark.skip(reason="runs in CI, or with HEADRACE_TEST_FULL=1")
        for item in items:
            if item.get_closest_marker("full_only"):
                item.add_marker(reason)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_kind" in metafunc.fixturenames:
        kinds = kinds_for(list(metafunc.definition.iter_markers()))
        everywhere = FULL or "broker" in metafunc.definition.path.parts
        metafunc.parametrize("server_kind", kinds if everywhere else one_of(kinds))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    pool = Servers(tmp_path_factory.mktemp)
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture
def server_url(servers: Servers, server_kind: ServerKind) -> str:
    """The URL of a running server: `redis://127.0.0.1:…` (fake) or `unix://…` (valkey, redis)."""
    return servers.url(server_kind)


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test has. Not from `random`, which pytest-randomly seeds alike for each."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture(autouse=True)
def no_leaked_keys(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test whose namespace holds a key without an end (invariant 8).

    It is set up first, so it looks last, when the test's own processes have been stopped.
    `@pytest.mark.leaves_keys("state", …)` names kinds of keys that a test leaves on purpose.
    """
    if "server_url" not in request.fixturenames:
        yield
        return
    url: str = request.getfixturevalue("server_url")
    namespace: str = request.getfixturevalue("namespace")
    yield
    allowed = frozenset(str(kind) for mark in request.node.iter_markers("leaves_keys") for kind in mark.args)
    complaints = check_namespace(url, namespace, allowed)
    if complaints:
        pytest.fail("keys without an end:\n  " + "\n  ".join(complaints), pytrace=False)
