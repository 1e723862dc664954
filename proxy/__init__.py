"""The running monitor: configuration, workers, control process, the channel between them."""
