"""How embeddings become scores. Arrays only."""
