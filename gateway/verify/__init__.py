"""A conformance kit for backends in any language: it sends what callers send, and holds the answers against the contract."""
