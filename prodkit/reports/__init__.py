"""Pages for people: of each run, of all runs and versions, and of two runs side by side."""
