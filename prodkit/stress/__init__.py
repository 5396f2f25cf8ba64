"""Load and faults, and what was endured."""
