"""What a running monitor says to others beside the traffic: its log, its evidence, and what happens."""
