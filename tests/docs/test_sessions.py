"""README and how-to pages are played at a terminal, and show what they say. (The tutorial: tests/e2e/test_walk.py.)"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from e2e.deployment import Deployment

from support.ports import free_port, is_free
from support.terminal import Person
from support.traces import Traces
from support.waiting import wait_until

from .pages import PAGES, ROOT, name_of
from .sessions import CTRL_C, File, Session, Typed, shows, steps

HOWTO = ROOT / "docs/howto"
TIMES = {"HEADRACE_LEASE": "2s", "HEADRACE_OWNERSHIP": "2s", "HEADRACE_METRICS_PORT": "0"}
"""As the deployment has them."""
PLAYED = [page for page in PAGES if (page.parent == HOWTO or page == ROOT / "README.md") and any(steps(page))]

pytestmark = pytest.mark.timeout(240)


@pytest.mark.full_only
@pytest.mark.servers("redis")
@pytest.mark.parametrize("page", PLAYED, ids=name_of)
def test_a_page_shows_what_it_says(page: Path, server_url: str, namespace: str, tmp_path: Path) -> None:
    home, screens = tmp_path / "home", tmp_path / "screens"
    home.mkdir()
    screens.mkdir()
    shutil.copy(ROOT / "examples/orders.py", home / "app.py")
    with Traces() as traces, ExitStack() as stack:
        environment = _environment(traces.environment)
        environment |= {"HEADRACE_NAMESPACE": namespace}
        if not _brings_its_server(page):
            environment |= {"HEADRACE_URL": server_url}
            stack.enter_context(Deployment(server_url, namespace, screens, [str(home / "app.py")]))
            wait_until(lambda: "Worker serves" in (screens / "worker.log").read_text(), 30, "a worker")
        person = stack.enter_context(Person(home, environment, screens))
        port = free_port()
        assert list(Session(page, person, home, _here(server_url, namespace, port)).play())
        person.press_ctrl_c_everywhere()
        stack.close()
        traces.assert_none(10)
        assert is_free(port)


def _here(server_url: str, namespace: str, port: int) -> dict[str, str]:
    """What differs from the reader's machine. A pipe would get other output of redis-cli than a terminal."""
    cli = f"redis-cli --no-raw -s {server_url.removeprefix('unix://')} XADD {namespace}:signals"
    return {
        "redis-cli XADD headrace:signals": cli,
        "redis://redis.internal:6379/0": server_url,
        "namespace    headrace": f"namespace    {namespace}",  # doctor's
        "namespace     headrace": f"namespace     {namespace}",  # dev's
        "namespace 'headrace'": f"namespace '{namespace}'",
        "6380": str(port),
    }


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without settings, and with our command first."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "VIRTUAL"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    scenes = str(ROOT / "tests/docs/scenes")
    return ours | {"PATH": path, "SCENES": scenes, **TIMES, **more}


def _brings_its_server(page: Path) -> bool:
    return any(isinstance(step, Typed) and re.match(r"headrace dev", step.command) for step in steps(page))


def test_a_page_is_read_as_a_session(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, "utf-8")
    assert list(steps(page)) == [
        File("app.py", "# app.py\nx = 1\n", 2),
        Typed("prepare", (), 6, hidden=True),
        Typed("headrace dev app.py", ("worker  runs, pid 12", "…"), 8),
        Typed(CTRL_C, ("stopped",), 11),
        Typed("headrace ls", (), 13),
    ]


PAGE = """\
```python
# app.py
x = 1
```

<!-- $ prepare -->
```console
$ headrace dev app.py
worker  runs, pid 12
…
^C
stopped
$ headrace ls
```

<!-- not run: reason -->
```console
$ rm -r /
```
"""


@pytest.mark.parametrize(
    ("expected", "said", "same"),
    [
        (("worker runs, pid 12",), "\nworker    runs, pid 34567  \n", True),
        (("a", "…", "all is well"), "a\nb\nc\nall is well\n", True),
        (("a", "…", "all is well"), "a\nall is well\n", True),
        (("+0.013 s  completed  on vm-1-0123abcd.1",), "+12.000 s  completed on other-host-77-fedcba98.2", True),
        (("2026-01-31 00:00:00 (3 s ago)",), "2027-12-01 23:59:59 (15 ms ago)", True),
        (("order-42",), "order-43", False),
        (("a",), "a\nb", False),
        (("a", "b"), "a", False),
        (("error: no …",), "error: yes", False),
    ],
)
def test_what_differs_from_run_to_run_is_the_same(expected: tuple[str, ...], said: str, same: bool) -> None:
    assert shows(expected, said) == same
