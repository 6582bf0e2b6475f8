//! A laboratory on one machine: namespaces joined by a bridge, real node processes in them, traffic
//! between them. The `demo` verb, the integration tests and the evidence run are built on it.
