"""A run on disk as its reader sees it: history, cost, disk use, summary, model card, export."""
