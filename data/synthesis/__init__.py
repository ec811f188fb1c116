"""Pictures of scene text, rendered with exact quads: picture.py makes one, of what the other files draw."""
