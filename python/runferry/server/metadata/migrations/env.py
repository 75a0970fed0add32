"""Alembic's entry: runs the migrations on the connection that `metadata.database` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from runferry.server.metadata.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
