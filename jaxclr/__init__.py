"""Self-supervised learning on the global affinity matrix of two sets of embeddings."""
