"""Function calls: how tools are told to a model, and how its calls are read from what it writes."""
