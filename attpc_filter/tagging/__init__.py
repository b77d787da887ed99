"""Events to tags: the plan, the batch, and the stages from reading to tagging."""
