"""What runs in a site's FLARE process: learner, gate, filter and guards."""
