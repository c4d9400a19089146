"""What is known of requests and of the engine, and who is told: log, traces, figures."""
