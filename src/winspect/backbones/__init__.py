"""What embeds: towers that turn normalised pictures and prompts into embeddings."""
