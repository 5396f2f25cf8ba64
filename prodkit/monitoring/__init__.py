"""Whether the champion is still doing its job, and who is told if it is not."""
