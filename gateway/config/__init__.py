"""Configuration: what operators write, checked as a whole before anything is served from it."""
