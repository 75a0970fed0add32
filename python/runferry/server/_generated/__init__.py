# @generated from proto/ by proto/generate.sh. Do not edit.
"""Messages and service of the write door, as grpcio wants them (proto/runferry/v1/ingest.proto)."""
