"""The exchange formats that all else rests on: strict JSON, its canonical form, JWS, SPIFFE IDs, network names."""
