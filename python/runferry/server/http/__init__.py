"""The read door: JSON, server-sent events, exact rows, and the dashboard's files (docs/http-api.md)."""
