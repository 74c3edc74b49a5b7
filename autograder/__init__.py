"""The instructor's machinery: builds the notebooks from their source, and the student bundle. It knows no lab by name."""
