"""Writes the pages."""

from __future__ import annotations

from . import REFERENCE, pages

for path, text in pages().items():
    changed = not path.exists() or path.read_text("utf-8") != text
    path.write_text(text, "utf-8")
    print(f"{path.relative_to(REFERENCE.parents[1])}: {'written' if changed else 'up to date'}")
