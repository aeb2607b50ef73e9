"""The HTTP side of the service: routes, documents, limits, refusals."""
