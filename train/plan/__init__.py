"""What a training takes before it is begun: memory, time, traffic, on which GPUs."""
