"""The adapter for every provider that speaks OpenAI's chat completions.

`request` writes the upstream's request, `chunks` reads its answer, streamed or whole, and `faults` reads its errors. Source:
https://platform.openai.com/docs/api-reference/chat.
"""
