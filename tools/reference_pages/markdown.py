"""What the pages have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def notice(source: str) -> str:
    """A comment that tells who opens the page where its text comes from."""
    return f"<!-- Made by `make docs` from {source}. Edit that. -->\n"
