"""What methods need trained: heads on hidden states. torch is imported where training starts."""
