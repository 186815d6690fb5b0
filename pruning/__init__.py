"""One more halving: attention heads, layers and vocabulary of a finished student taken away, and what that costs."""
