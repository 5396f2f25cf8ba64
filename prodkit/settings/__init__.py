"""What people may say: the parameters of notebooks, how they are written, declared and checked."""
