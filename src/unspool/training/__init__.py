"""Train what methods need: heads on hidden states. torch is imported only when training starts."""
