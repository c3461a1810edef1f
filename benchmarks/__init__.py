"""What this package costs an application, measured side by side with what a user would have without it."""
