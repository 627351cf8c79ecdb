"""State that outlives a request, and that several processes may share: what limits and budgets have left, and small values."""
