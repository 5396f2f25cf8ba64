"""Whether a recorded run can be believed."""
