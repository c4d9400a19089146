"""Drafts: guesses of what a sequence will say next, verified in the same forward pass."""
