"""The edge of the core: what happens to every RPC before and after its servicer, whichever channel it came by."""
