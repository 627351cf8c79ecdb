"""OpenAI's Responses API: asked of providers that have it, and over chat of those that have not."""
