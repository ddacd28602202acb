"""A study: its plan, its jobs, how they are launched, and what they come to."""
