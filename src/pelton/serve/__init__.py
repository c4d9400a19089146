"""HTTP: the engine behind the API that OpenAI's clients speak. Needs the `serve` extra."""
