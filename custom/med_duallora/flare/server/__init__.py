"""What runs in the server's FLARE process: aggregator, evaluation, persistor and selector."""
