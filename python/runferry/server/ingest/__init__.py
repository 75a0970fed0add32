"""The write door: one gRPC stream a writer, frames in, durable numbers out."""
