//! The worker: a pure state machine, its journal and the daemon that runs the effects.

pub mod journal;
pub mod machine;
