"""Mixed calls with faults for minutes or hours: what they use must not grow. ``python -m tests.soak --help``."""
