"""Arrays become pictures, charts and pages."""
