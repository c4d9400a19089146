"""Load as a client makes it: what is asked and when, over HTTP to any OpenAI-compatible server, timed."""
