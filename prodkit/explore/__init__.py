"""One line that lets a reader look around: controls beside a figure, a still figure where nothing can be moved."""
