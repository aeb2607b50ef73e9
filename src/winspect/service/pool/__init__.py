"""Workers of the service and the batches they are given."""
