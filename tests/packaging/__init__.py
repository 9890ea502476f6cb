"""What is shipped: the wheel, the source distribution, the extras, and the locks."""
