"""A site at work: features, training, evaluation and the state that stays there."""
