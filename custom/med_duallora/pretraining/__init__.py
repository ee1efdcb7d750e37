"""Masked-autoencoder pre-training of a backbone, and the linear probe that judges it."""
