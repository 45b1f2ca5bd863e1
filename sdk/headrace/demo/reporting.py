"""The report that the demo publishes once it is approved: Markdown, the same for the same facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

FILE: Final = "report.md"
_TOP: Final = 10


def totals(facts: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Sums over all modules."""
    return {
        "modules": len(facts),
        "lines": sum(fact["size"]["lines"] for fact in facts),
        "bytes": sum(fact["size"]["bytes"] for fact in facts),
        "imports": sum(len(fact["imports"]) for fact in facts),
        "functions": sum(fact["complexity"]["functions"] for fact in facts),
        "complexity": sum(fact["complexity"]["cyclomatic"] for fact in facts),
        "docstrings": sum(fact["docstrings"]["written"] for fact in facts),
    }


def report(title: str, facts: Sequence[Mapping[str, Any]]) -> str:
    sums = totals(facts)
    hardest = sorted(facts, key=lambda fact: (-fact["complexity"]["hardest_cyclomatic"], fact["module"]))
    functions = [
        f"{fact['module']}.{fact['complexity']['hardest']}: {fact['complexity']['hardest_cyclomatic']}"
        for fact in hardest[:_TOP]
    ]
    imported = Counter(name for fact in facts for name in fact["imports"])
    modules = sorted(imported.items(), key=lambda item: (-item[1], item[0]))[:_TOP]
    possible = sum(fact["docstrings"]["possible"] for fact in facts)
    lines = [
        f"# {title}",
        "",
        *(f"* {name}: {number:,}" for name, number in sums.items()),
        f"* documented: {100 * sums['docstrings'] // max(1, possible)} % of modules, classes and functions",
        "",
        "## The most complex functions",
        "",
        *(f"1. {line}" for line in functions),
        "",
        "## The most imported modules",
        "",
        *(f"1. {name}: {count}" for name, count in modules),
        "",
    ]
    return "\n".join(lines)


def write(directory: Path, text: str) -> Path:
    """Whole or not at all, for the process may be killed at any moment."""
    path = directory / FILE
    part = path.with_suffix(".part")
    part.write_text(text, "utf-8")
    part.replace(path)
    return path
