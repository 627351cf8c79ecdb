"""`twinspan demo`: the gateway with its embedded model, one answer over each surface, and the trace of each."""

_PROMPT = "In one short sentence: what does an AI gateway do?"
