"""The core of Twinspan: every capability of the gateway, as services defined in protobuf.

`app` wires it; `exchange` shows the road of one chat; `server` and `inprocess` are the two ways in.
"""
