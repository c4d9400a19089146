"""From a request that was let in to pieces of text, whichever API it came by."""
