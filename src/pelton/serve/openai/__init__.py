"""Chat, completions and embeddings as OpenAI's clients know them, with vLLM's further fields."""
