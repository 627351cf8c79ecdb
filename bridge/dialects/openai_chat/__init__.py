"""OpenAI's chat completions, as a client speaks them.

`request` reads what the client sent; `response` writes a whole answer; `stream` writes an answer chunk by chunk. Source:
https://platform.openai.com/docs/api-reference/chat.
"""
