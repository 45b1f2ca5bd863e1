"""URLs as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace_broker.connection import Server, call
from headrace_broker.embedded import EmbeddedServer
from headrace_broker.errors import ConfigurationError
from headrace_broker.locate import embedded_directory, locate, runs_in


@pytest.mark.parametrize("url", ["redis://localhost:6379/0", "rediss://h", "unix:///tmp/s.sock"])
def test_a_server_url_stays_as_it_is(url: str) -> None:
    with locate(url) as located:
        assert (located.url, located.embedded) == (url, None)


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "embedded://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="embedded://DIR"):
        locate(url)


def test_directories_are_relative_absolute_or_at_home() -> None:
    assert embedded_directory("embedded://.headrace") == Path(".headrace")
    assert embedded_directory("embedded:///var/x") == Path("/var/x")
    assert embedded_directory("embedded://~/x") == Path.home() / "x"


def test_an_embedded_server_is_started_joined_and_stopped_by_its_starter(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}/data"
    assert not runs_in(tmp_path / "data")
    with locate(url) as first:
        assert runs_in(tmp_path / "data")
        with locate(url) as second:
            assert second.url == first.url
            assert isinstance(second.embedded, EmbeddedServer)
            assert not second.embedded.started
        link = Server(first.url).connect()  # the one that joined did not stop it
        assert call(link, "PING") == b"PONG"
        link.close()
    assert not runs_in(tmp_path / "data")
    assert not runs_in(tmp_path / "never")
