"""The trust domain: authorities, identities, evidence certificates, revocation, TLS contexts."""
