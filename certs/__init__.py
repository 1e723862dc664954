"""The trust domain: certificate authorities, identities (SPIFFE), revocation, TLS contexts."""
