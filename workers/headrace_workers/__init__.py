"""The processes that run the author's tasks: keeper, child, executors."""
