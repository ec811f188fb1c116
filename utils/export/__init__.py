"""What export.py is made of: the graph of each format, its metadata, its check against PyTorch, its card."""
