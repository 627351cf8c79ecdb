"""Routes: thin handlers that read a request, call one RPC and write its answer."""
