"""The metadata database: projects, runs, writers, config and summary documents, and the fields to filter them by."""
