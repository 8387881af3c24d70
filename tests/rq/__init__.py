"""The bridge to RQ, with real workers of RQ."""
