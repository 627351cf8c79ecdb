"""Access: who a credential belongs to, and what they may. Pure: no I/O, and the clock is passed in."""
