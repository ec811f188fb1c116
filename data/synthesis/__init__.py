"""Pictures of scene text, rendered with exact quads: image.py makes one, of what the other files draw."""
