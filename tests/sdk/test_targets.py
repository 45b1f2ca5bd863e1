"""Targets of the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.errors import TargetError
from headrace.targets import Registry, load_target, load_targets

ORDERS = """
from __future__ import annotations
from headrace import Flow, task

@task
def charge(order: int) -> int:
    return order

@task
def refund(order: int) -> int:
    return order

orders = Flow("orders", input=int).then(charge).then(lambda n: n, name="same")
number = 3
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; what a test imports is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("orders", "shop"):  # whatever another test has loaded under these names
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(place: Path, name: str, text: str) -> None:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("target", ["orders.py", "orders", "./orders.py", " orders.py "])
def test_every_flow_and_task_at_module_level_is_found(place: Path, target: str) -> None:
    write(place, "orders.py", ORDERS)
    registry = load_target(target)
    assert list(registry.flows) == ["orders"]
    assert set(registry.tasks) == {"charge", "refund", "same"}


def test_one_attribute(place: Path) -> None:
    write(place, "orders.py", ORDERS)
    assert set(load_target("orders:orders").tasks) == {"charge", "same"}
    assert set(load_target("orders.py:refund").tasks) == {"refund"}


def test_a_module_in_a_package_and_what_it_imports(place: Path) -> None:
    write(place, "emporium/__init__.py", "")
    write(place, "emporium/flows.py", "from .orders import orders, charge\n")
    write(place, "emporium/orders.py", ORDERS)
    registry = load_target("emporium.flows")
    assert list(registry.flows) == ["orders"]


def test_a_file_sees_its_neighbours(place: Path) -> None:
    write(place, "deep/orders.py", ORDERS)
    write(place, "deep/main.py", "from orders import orders\n")
    assert list(load_target("deep/main.py").flows) == ["orders"]


def test_a_file_and_what_imports_it_are_one_module(place: Path) -> None:
    write(place, "orders.py", ORDERS)
    write(place, "more.py", "from orders import orders, refund\n")
    registry = load_targets(["orders.py", "more", "orders"])
    assert set(registry.tasks) == {"charge", "refund", "same"}


def test_a_file_may_be_called_like_a_module_of_python(place: Path) -> None:
    write(place, "statistics.py", ORDERS)
    write(place, "my-orders.py", ORDERS.replace('Flow("orders"', 'Flow("mine"'))
    assert list(load_target("statistics.py").flows) == ["orders"]
    assert list(load_target("my-orders.py").flows) == ["mine"]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("", "A target is file.py, package.module"),
        ("orders.py:", "A target is"),
        ("deep/orders", r"A file ends in \.py"),
        ("a b", "A target is"),
        ("nowhere.py", "there is no file .*nowhere.py"),
        ("nowhere", "there is no module 'nowhere' here"),
        ("orders.nowhere", "there is no module 'orders.nowhere'"),
        ("orders:nothing", "nothing is nothing of that name, .* The module has charge, refund, orders"),
        ("orders:number", "number is of type int, not a Flow or a task"),
        ("empty", "has no flows and no tasks"),
        ("broken.py", r"cannot be imported: ZeroDivisionError: division by zero \(broken.py, line 2\)"),
        ("broken", r"ZeroDivisionError: division by zero \(broken.py, line 2\)"),
        ("importing.py", r"ModuleNotFoundError: No module named 'not_there' \(importing.py, line 1\)"),
        ("importing", r"cannot be imported: ModuleNotFoundError: No module named 'not_there'"),
        ("syntax.py", "SyntaxError"),
        ("exits.py", r"it calls sys.exit\(3\) when imported"),
        ("invalid.py", r"InvalidFlow: Flow 'x' has two nodes named 'f'.*\(invalid.py, line 3\)"),
        ("unfinished.py", r"it is a fork that is not ended; call \.join"),
        ("stepless.py", "it: InvalidFlow: Flow 'x' has no steps"),
        ("annotation.py", r"f: InvalidTask: Task 'f': the annotation 'Nowhere' of its parameter 'n'"),
        ("conflict.py", "Two different tasks are named 'f': conflict.f and conflict.g"),
        ("two_flows.py", "Two different flows are named 'x'"),
        ("relative.py", "write the target as package.module"),
    ],
)
def test_errors(place: Path, target: str, says: str) -> None:
    head = "from headrace import Flow, task\n"
    function = "def f(n): return n\n"
    write(place, "orders.py", ORDERS)
    write(place, "empty.py", "number = 3")
    write(place, "broken.py", "\n1 / 0\n")
    write(place, "importing.py", "import not_there\n")
    write(place, "syntax.py", "def\n")
    write(place, "exits.py", "import sys\nsys.exit(3)\n")
    write(place, "invalid.py", head + function + "it = Flow('x').then(f).then(f)\n")
    write(place, "unfinished.py", head + function + "it = Flow('x').fork().branch('a', f)\n")
    write(place, "stepless.py", head + "it = Flow('x')\n")
    write(place, "annotation.py", head + "@task\ndef f(n: 'Nowhere'): ...\n")
    write(place, "conflict.py", head + "@task\ndef f(n): ...\n@task(name='f')\ndef g(n): ...\n")
    write(place, "two_flows.py", head + function + "a = Flow('x').then(f)\nb = a.delay(1)\n")
    write(place, "relative.py", "from .other import x\n")
    with pytest.raises(TargetError, match=says):
        load_target(target)


def test_targets_that_do_not_fit_together(place: Path) -> None:
    write(place, "one.py", ORDERS)
    write(place, "two.py", ORDERS)
    with pytest.raises(TargetError, match=r"Two different tasks are named 'charge': one\.charge and two\.charge"):
        load_targets(["one", "two"])


def test_nothing_is_a_registry_too() -> None:
    assert load_targets([]) == Registry({}, {})
