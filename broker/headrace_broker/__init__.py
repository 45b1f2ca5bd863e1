"""The contract: everything that crosses Redis, and the only package that speaks to it."""
