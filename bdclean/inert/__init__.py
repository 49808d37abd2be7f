"""Reading PyTorch files without running code from them, with the standard library only."""
