"""One figure a function, and one line that lets a reader look around."""
