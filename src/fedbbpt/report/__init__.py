"""What people read: tables, curves and pages."""
