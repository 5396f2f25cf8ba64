"""The HTTP face of the champion."""
