"""One figure a function."""
