"""Results, and how people see them: JSON, terminal, HTML, TensorBoard."""
