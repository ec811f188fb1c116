"""What every command needs around its own work."""
