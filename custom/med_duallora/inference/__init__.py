"""A trained model in use: what it says of a scan, whether it was released, and what speaks against trusting it."""
