"""Flows: the builder, and what it compiles to (`headrace_broker.definitions`)."""

from __future__ import annotations

from .builder import Flow
from .forks import Fork
from .keys import route_key
from .routes import Route

__all__ = ["Flow", "Fork", "Route", "route_key"]
