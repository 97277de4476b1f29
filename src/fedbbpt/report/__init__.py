"""What people read: tables and curves."""
