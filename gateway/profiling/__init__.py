"""Profiles of the running process: where it spends time and memory, what waits, what held it up. All of it only when asked for."""
