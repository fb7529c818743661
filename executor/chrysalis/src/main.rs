//! The `chrysalis` command.

fn main() {}
