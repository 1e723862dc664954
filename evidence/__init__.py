"""The action log and what is proved from it: entries, ledger, Merkle tree, windows, BETs, ECTs, export files."""
