"""Logits to tokens: processors, sampling, acceptance of drafts, and the rules that end a request.

Everything here is row-wise: what is chosen for a row depends on that row, its own history and its
own random numbers, never on what else is in the batch.
"""
