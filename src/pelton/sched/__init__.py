"""Which sequences run in a step, and how many of their tokens."""
