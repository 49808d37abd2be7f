"""Loading suspects from files, with their triggers."""
