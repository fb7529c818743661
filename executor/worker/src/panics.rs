//! Panic messages may quote what was being worked on: a slice out of bounds of a string shows the string.

use std::panic;

/// From now on a panic of this process logs its place and nothing of its message. For the program to call before it runs
/// a worker or an engine.
pub fn hide_messages() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(
            place,
            thread,
            "a thread panicked; its message is withheld, as it may quote a prompt"
        );
    }));
}
