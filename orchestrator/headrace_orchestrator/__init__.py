"""The central process: reads events, runs the engine, commits. It runs no user code."""
