"""What is written: tag tables, hits, latents, manifest, and how it becomes complete."""
