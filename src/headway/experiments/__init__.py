"""The lab: comparisons that settle a question for one's own model, and the papers' experiments repeated."""
