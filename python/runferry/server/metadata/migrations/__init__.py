"""Versions of the metadata schema, oldest first; alembic runs them (`env.py`)."""
