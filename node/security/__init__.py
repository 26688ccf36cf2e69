"""Who asks, and what they may do: optional users, API keys and privileges."""
