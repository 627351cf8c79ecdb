"""The bridge: OpenAI's REST and SSE routes, translated into calls of the core's services.

It adds nothing of its own to what the services do, and reaches them only through the generated stubs.
"""
