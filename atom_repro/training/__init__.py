"""Fine-tuning: batches, losses, optimisation, several processes, resuming."""
