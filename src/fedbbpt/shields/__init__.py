"""What is done to an update on the client before it leaves."""
