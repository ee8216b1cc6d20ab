//! What every room may use of the network: addresses, clock, waiting times, streams, socket options.

pub mod addr;
pub mod address_map;
pub mod backoff;
pub mod clock;
pub mod counter;
pub mod rarely;
pub mod reserve;
pub mod resolver;
pub mod socket;
pub mod stream;
pub mod tls;
