"""Passwords in URLs are for the server only."""

from __future__ import annotations

import pytest

from headrace_broker.connection import Server
from headrace_broker.errors import ConfigurationError
from headrace_broker.urls import shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://ann@host/1", "redis://ann@host/1"),
        ("unix:///tmp/a:b@c.sock?db=2", "unix:///tmp/a:b@c.sock?db=2"),
        ("embedded://.headrace", "embedded://.headrace"),
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://ann:secret@host", "rediss://ann:***@host"),
        ("unix://ann:secret@/tmp/s.sock", "unix://ann:***@/tmp/s.sock"),
        ("redis://:sec%2Fret@[::1]:6379", "redis://:***@[::1]:6379"),
        ("redis://ann:se@cr:et@host", "redis://ann:***@host"),
        ("redis://ann:se/cr?e#t@host/0", "redis://ann:***@host/0"),
        ("redis://host/0?db=1&password=secret&x=1", "redis://host/0?db=1&password=***&x=1"),
        ("rediss://host?ssl_password=secret#f", "rediss://host?ssl_password=***#f"),
        ("ann:secret@host", "ann:***@host"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, expected: str) -> None:
    assert shown(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "redis://ann:1234/secret@host",  # redis-py takes this for port 1234 of the host "ann"
        "redis://ann:secret/1234@host",
        "redis://ann:secret?1234@host",
        "redis://ann:secret#1234@host",
        "redis://[ann:secret@host",
        "http://ann:secret@host",
        "ann:secret@host",
    ],
)
def test_a_refused_url_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="A server URL looks like") as refused:
        Server(url)
    assert "secret" not in str(refused.value)
    assert "1234" not in str(refused.value)


def test_how_to_write_a_password_is_said_if_it_was_not_escaped() -> None:
    with pytest.raises(ConfigurationError, match="%2F %3F %23 and %40"):
        Server("redis://ann:se/cret@host")
    Server("redis://ann:se%2Fcret@host/0?client_name=ann@here")


def test_a_server_is_represented_without_its_password() -> None:
    assert repr(Server("redis://:secret@host:6379/0")) == "Server('redis://:***@host:6379/0')"
