"""The simulator: shipped partition loop, keeper, child loop and client on virtual time, with a seed."""
