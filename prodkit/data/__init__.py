"""Tables: where they lie, what their cells mean, and a window of one as it could be known at a moment."""
