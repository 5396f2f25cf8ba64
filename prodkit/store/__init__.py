"""What is kept: versions, the champion and its history, runs and metrics."""
