"""Profiles of the running process: where it spends time and memory, what waits, and what held it up. Nothing runs until one is asked for."""
