//! Federations over a Flower SuperLink (`flwr` 1.41): protobuf over HTTP, content-addressed objects.
//!
//! ```text
//! node  ── v1/fleet ──►  SuperLink  ◄── v1/runtime ── coordinator (ServerApp)
//!   or: client task ── v1/runtime ──► stock SuperNode (--isolation process) ── v1/fleet ──► SuperLink
//! ```
//!
//! Either end may be Flower's own: a stock Python ServerApp with nodes of ours (arrays by name, `num-examples`), or our coordinator with stock nodes.
//! What only our ends understand (compressed updates, messages of a secure sum) travels as arrays with a serialisation name of its own, which Flower
//! passes on unharmed.

pub mod fleet;
mod heartbeat;
pub mod http;
pub mod identity;
pub mod limits;
pub mod link;
pub mod node;
pub mod object;
pub mod proto;
pub mod record;
pub mod runtime;
