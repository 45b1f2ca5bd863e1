"""The engine: a pure state machine, `(definition, instance, event, now) -> draft` (invariant 4).

    model.py      what an instance is, and the draft a batch of events makes of it
    program.py    a definition with its node kinds' parameters parsed
    turn.py       one event applied to one draft: moving tokens, ending scopes
    attempts.py   dispatching a task, and what becomes of an attempt
    lifecycle.py  start, cancel, fail, end
    apply.py      which event goes where
    nodes/        one file per node kind, and the table of them

Nothing here reads a clock, a random number, a connection or a log. Imports point up this list.
"""
