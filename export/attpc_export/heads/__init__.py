"""What turns a latent into scores, or finds clusters in it."""
