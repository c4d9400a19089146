"""Files of requests, answered without HTTP."""
