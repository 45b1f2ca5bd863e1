"""Retention: ended instances that are due go, and what nothing refers to any more (ADR 6)."""

from __future__ import annotations

from .sweeper import Sweeper

__all__ = ["Sweeper"]
