"""Notebooks executed once for each piece of work, with a record that is true whatever happens."""
