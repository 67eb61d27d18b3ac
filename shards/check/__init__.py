"""Is a dataset what was written? What can be repaired, and what is measured over all of it."""
