"""What the verbs of `edgeml agent` do; each is imported when it is called."""
