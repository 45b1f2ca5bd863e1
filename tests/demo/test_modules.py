"""What the demo does to a module: the same plain functions that its flow and its plain run call."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest

from headrace.demo import modules
from headrace.demo.modules import Complexity, Docstrings, Module, Outline, Size


def outline_of(text: str, name: str = "pack.mod", file: str = "mod.py") -> Outline:
    return modules.parse(modules.Source(Module(name, f"/somewhere/pack/{file}"), dedent(text)))


def complexity_of(text: str) -> Complexity:
    return modules.complexity(outline_of(text))


def test_the_standard_library_is_found_whole_and_in_order() -> None:
    found = modules.standard_library()
    names = [module.name for module in found]
    assert names == sorted(set(names))
    assert {"json", "json.decoder", "asyncio.base_events", "os", "unittest.mock"} <= set(names)
    assert len(found) > 500
    assert not [name for name in names if {"test", "tests", "idle_test"} & set(name.split("."))]
    assert not [module for module in found if "site-packages" in module.path or "dist-packages" in module.path]
    assert found == modules.standard_library()


def test_what_no_module_can_be_is_left_out(tmp_path: Path) -> None:
    for file in (
        "a.py",
        "b/__init__.py",
        "b/c.py",
        "config-3/x.py",
        "tests/t.py",
        "b/test/u.py",
        "not-one.py",
        "d.txt",
    ):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "huge.py").write_bytes(b"#" * 1_000_000)
    assert [module.name for module in modules.standard_library(tmp_path)] == ["a", "b", "b.c"]


def test_some_are_chosen_evenly() -> None:
    every = [Module(str(number), "") for number in range(10)]
    assert modules.choose(every, None) == every
    assert modules.choose(every, 99) == every
    assert [module.name for module in modules.choose(every, 4)] == ["0", "2", "5", "7"]


def test_one_in_twenty_stumbles_always_the_same() -> None:
    stumbling = [name for number in range(4000) if modules.stumbles(name := f"module{number}")]
    assert 100 < len(stumbling) < 300
    assert all(modules.stumbles(name) for name in stumbling)


def test_a_text_is_decoded_as_python_does(tmp_path: Path) -> None:
    file = tmp_path / "latin.py"
    file.write_bytes(b"# coding: latin-1\nname = '\xe9'\n")
    assert modules.read(Module("latin", str(file))).text.endswith("name = 'é'\n")
    file.write_bytes(b"# coding: no-such\n")
    with pytest.raises(SyntaxError):
        modules.read(Module("latin", str(file)))


def test_what_does_not_parse_is_an_error() -> None:
    with pytest.raises(SyntaxError):
        outline_of("def")


def test_size() -> None:
    text = "# one\n\nx = 'é'  # not counted\n   # two\n"
    assert modules.size(outline_of(text)) == Size("pack.mod", bytes=len(text.encode()), lines=4, blank=1, comments=2)


def test_imports_are_resolved_and_found_anywhere() -> None:
    text = """
        import os, os.path
        from . import sibling
        from .near import x
        from .. import far
        try:
            from collections import abc
        except ImportError:
            def f():
                import os
    """
    assert modules.imports(outline_of(text, "a.b.c")) == ["a", "a.b", "a.b.near", "collections", "os", "os.path"]
    assert modules.imports(outline_of("from .near import x", "a.b", "__init__.py")) == ["a.b.near"]


def test_docstrings() -> None:
    text = '''
        """Of the module."""
        class A:
            """Two words."""
            def f(self): pass
        async def g():
            """One."""
    '''
    assert modules.docstrings(outline_of(text)) == Docstrings(possible=4, written=3, words=6)


def test_complexity_of_nothing() -> None:
    assert complexity_of("if x:\n    pass") == Complexity(0, 0, 0, "", 0)


@pytest.mark.parametrize(
    ("body", "cyclomatic", "cognitive"),
    [
        ("pass", 1, 0),
        ("if x: pass", 2, 1),
        ("if x: pass\n elif y: pass\n else: pass", 3, 2),
        ("for i in x:\n  if i: pass", 3, 3),
        ("while x:\n  for i in x:\n   if i: pass", 4, 6),
        ("try: pass\n except A: pass\n except B:\n  if x: pass\n finally: pass", 4, 4),
        ("with x:\n  if y: pass", 2, 1),
        ("match x:\n  case 1: pass\n  case _: pass", 3, 2),
        ("if x: pass\n else:\n  y = 1\n  if y: pass", 3, 3),
    ],
)
def test_complexity(body: str, cyclomatic: int, cognitive: int) -> None:
    assert complexity_of(f"def f():\n {body}") == Complexity(1, cyclomatic, cognitive, "f", cyclomatic)


def test_the_hardest_function_has_its_whole_name() -> None:
    text = """
        def easy(): pass
        class A:
            class B:
                def hard(self):
                    if x: pass
                    def inner():
                        if x:
                            if y: pass
    """
    assert complexity_of(text) == Complexity(3, 6, 4, "A.B.hard.inner", 3)


def test_a_module_is_measured_the_same_each_time() -> None:
    module = next(module for module in modules.standard_library() if module.name == "json.decoder")
    facts = modules.measure(module)
    assert facts.module == "json.decoder"
    assert "json.scanner" in facts.imports or "json" in facts.imports
    assert facts.complexity.hardest
    assert facts.to_json() == modules.measure(module).to_json()
    assert json.loads(facts.to_json())["size"]["lines"] == facts.size.lines
