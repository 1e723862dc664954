"""The Verifier: what an outsider concludes from logs, BETs and chains, offline and from public keys."""
