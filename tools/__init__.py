"""What looks after the repository itself: nothing here is installed."""
