"""Discovery: which models providers have, asked of the providers themselves and looked up in a registry."""
