"""The REST surface's own description, as an OpenAPI document that is made from the protos and the route table."""
