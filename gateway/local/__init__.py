"""The embedded model: a small one that is part of the installation, in a process of its own."""
