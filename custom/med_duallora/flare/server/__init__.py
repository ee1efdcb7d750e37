"""What runs in the server's FLARE process: aggregator, persistor, selector, evaluation and TensorBoard."""
