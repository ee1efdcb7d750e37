"""A site at work: its fitness for a job, model, features, training, scores, what it offers and the state that stays."""
