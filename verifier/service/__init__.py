"""The Verifier as a service: what monitors push, what it is worth, who is told. The rest of the folder is offline."""
