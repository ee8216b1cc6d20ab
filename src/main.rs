//! See `switchmaster --help`.
fn main() {}
