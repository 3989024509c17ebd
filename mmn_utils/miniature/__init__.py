"""The embedded default: an emoji world, the small models that live in it, and how both were made."""
