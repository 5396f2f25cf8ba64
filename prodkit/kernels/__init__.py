"""Kernels that start fast, share nothing with one another, and do not outlive who asked for them."""
