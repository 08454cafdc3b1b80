"""Parts of the denoise loop: unmask policies, score transforms, block schedules, stop rules."""
