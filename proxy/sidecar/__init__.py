"""A proxy on loopback for a client that cannot do mTLS to its proxy: it has a certificate, and no monitor."""
