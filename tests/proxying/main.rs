//! Bytes through the real program, before scripted masters and Sentinels: quick, and exact about every byte.

#[path = "../harness/mod.rs"]
mod harness;

mod bytes;
mod doors;
mod files;
mod ports;
mod switching;
mod waiting;

use std::net::TcpStream;

use harness::fake_master::{Bytes, FakeMaster};
use harness::fake_sentinel::{FakeSentinel, Protocol, View};
use harness::proxy::{Plan, Proxy};
pub(crate) use harness::stream::{SOON, assert_silent, connect, echoed, free_address, read_to_end};

/// A scripted Sentinel and master, and a proxy in front of them.
pub(crate) struct Stage {
    pub(crate) master: FakeMaster,
    pub(crate) sentinel: FakeSentinel,
    pub(crate) proxy: Proxy,
}

impl Stage {
    /// Sets it, with the first master verified.
    pub(crate) fn set(bytes: Bytes) -> Self {
        let master = FakeMaster::start(bytes);
        let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
        let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
        Self {
            master,
            sentinel,
            proxy,
        }
    }

    /// One more client.
    pub(crate) fn client(&self) -> TcpStream {
        connect(self.proxy.addr())
    }
}
