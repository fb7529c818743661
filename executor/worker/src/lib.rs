//! The worker's pure state machine, its journal and the daemon that runs the effects.
