"""What people and Verifiers order of a running monitor: by whom, what may be ordered, and what is kept of it."""
