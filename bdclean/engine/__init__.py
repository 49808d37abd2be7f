"""Lightning, bent once to what this field needs."""
