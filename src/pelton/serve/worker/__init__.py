"""The engine and the process it runs in, from both sides of the socket between."""
