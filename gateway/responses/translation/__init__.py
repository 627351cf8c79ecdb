"""The Responses API in terms of chat, and back. Pure: no I/O, and the time and new identifiers come from outside."""
