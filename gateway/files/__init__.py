"""Files that callers keep at the gateway: bytes on disk, and what is known of them in SQLite."""
