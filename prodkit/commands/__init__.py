"""What is typed after `prodkit`: each command, its options, and what it says."""
