"""What all requests have in common: connections, guards, admission, errors, event streams."""
