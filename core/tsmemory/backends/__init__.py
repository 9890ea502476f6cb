"""The engines, one module each; `base` is their contract. Nothing is imported here, so that no
driver is."""
