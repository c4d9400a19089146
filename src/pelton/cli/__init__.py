"""The command line: one file a verb. Modules here import nothing heavy until a verb runs."""
