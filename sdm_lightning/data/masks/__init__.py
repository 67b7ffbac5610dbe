"""Free-form masks: presets, families, files, and which colour is the hole."""
