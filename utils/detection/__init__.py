"""From pictures to words."""
