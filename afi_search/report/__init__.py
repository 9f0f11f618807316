"""Views of a study: its front as tables, pictures and pages."""
