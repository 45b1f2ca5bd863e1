"""A scene of the docs: `blocked.py ID` starts an instance whose definition is not stored, so it is blocked at once."""

from __future__ import annotations

import os
import sys

from headrace import Flow
from headrace_broker import codec
from headrace_broker.connection import Server
from headrace_broker.conversations import converse
from headrace_broker.namespace import open_namespace
from headrace_broker.requests import Payload, StartRequest


def identity(value: int) -> int:
    return value


def main() -> None:
    link = Server(os.environ["HEADRACE_URL"]).connect()
    opened = converse(link, open_namespace(os.environ["HEADRACE_NAMESPACE"]))
    digest = Flow("orders", input=int).then(identity, name="unknown").definition.digest
    converse(link, StartRequest(sys.argv[1], "orders", digest, Payload(codec.encode(0))).hold(opened))
    link.close()


if __name__ == "__main__":
    main()
