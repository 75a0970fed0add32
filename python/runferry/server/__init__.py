"""The server (`pip install runferry[server]`): write door, store, read door, dashboard.

The only part of Runferry that uses grpcio, protobuf, SQLAlchemy and an ASGI server; the client never imports it.
"""
