"""The programs that the demo runs: ordinary agents, tools and data sources that know nothing of lictor."""
