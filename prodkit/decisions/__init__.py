"""From evidence to one action that was tried on the same rows first."""
