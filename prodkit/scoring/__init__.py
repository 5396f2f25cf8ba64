"""Predictions that never crash: one row, a window, or a table larger than memory."""
