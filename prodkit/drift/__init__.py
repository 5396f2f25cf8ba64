"""Summaries of tables that can be merged, and what differs between two of them, by how much and how surely."""
