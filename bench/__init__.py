"""The benchmark: what the gateway costs beside doing nothing, in one run on one machine. `python -m bench --help` starts here.

`runner` starts the processes (`mock`, `floor`, `echo`, `collector`, `load`, `grpc_load` and the gateway) and has the load
generators measure one phase after another; `report` writes what came out. Nothing in here is imported by the gateway. How it
measures and how to read it is in docs/performance.md.
"""
