"""What can be asked of a model: an operation for each kind, with the attempt that asks a provider for it."""
