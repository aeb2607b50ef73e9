"""The bundled model's few-shot method: several distances, each standardised by what the good samples say of it."""
