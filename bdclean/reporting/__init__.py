"""Results as dataclasses, and their rendering as JSON, terminal output, HTML and TensorBoard."""
