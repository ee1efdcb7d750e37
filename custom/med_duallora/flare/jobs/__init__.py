"""Jobs as FLARE takes them: recipe, exported folders and submission."""
