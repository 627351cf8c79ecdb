"""The core's services: thin servicers, one a proto service, that hand each request to the part of the core that answers it."""
