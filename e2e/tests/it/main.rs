//! The whole system, as its users meet it: a real `hawser up` on a Postgres of its own, called over gRPC and HTTP.
//!
//! Each test starts an instance for itself, so what can be looked at on one and the same stands in one test.

mod audit;
mod calls;
mod canary;
mod crash;
mod descriptors;
mod faults;
mod isolation;
mod node;
mod path;
mod policy;
mod python;
mod readme;
mod row_security;
mod sink;
mod system;
mod trace;
mod webhooks;
