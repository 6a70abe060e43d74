//! What is answered: parsed request → answer, one module per resource. The only layer that knows status
//! codes.

pub mod batch;
pub mod cors;
pub mod forwarded;
pub mod reject;
pub mod reports;
pub mod status;

/// The type of every answer with a body; the spelling is the Go server's.
pub const JSON: &str = "application/json; charset=utf-8";
