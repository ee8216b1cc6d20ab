//! `redis-benchmark` through the proxy: every default test, with and without pipelining, and not one error.

mod harness;

use std::process::{Command, Output};

use harness::topology::Topology;

/// Of each test; enough for some seconds of it.
const REQUESTS: &str = "20000";

#[test]
fn redis_benchmark_without_pipelining() {
    benchmark(1);
}

#[test]
fn redis_benchmark_with_a_pipeline_of_16() {
    benchmark(16);
}

fn benchmark(pipeline: usize) {
    let servers = Topology::start_with(|options| {
        options.replicas = 0;
        options.sentinels = 1;
        options.quorum = 1;
    });
    let proxy = servers.proxy();
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &proxy.addr().port().to_string()])
        .args(["-q", "-P", &pipeline.to_string(), "-n", REQUESTS])
        .output()
        .unwrap_or_else(|e| {
            panic!("redis-benchmark cannot be started ({e}): apt-get install redis-tools")
        });
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(status.success(), "{status}\n{stdout}\n{stderr}");
    // Progress is overwritten in place: what counts is what stands there in the end.
    let results: Vec<&str> = stdout
        .split(['\n', '\r'])
        .filter(|line| line.contains("requests per second"))
        .collect();
    for test in ["PING_INLINE", "SET", "GET", "LPUSH", "LRANGE_600", "MSET"] {
        assert!(
            results
                .iter()
                .any(|line| line.trim_start().starts_with(test)),
            "{test} has no result:\n{stdout}"
        );
    }
    for said in [&stdout, &stderr] {
        let lower = said.to_lowercase();
        for word in ["error", "err ", "could not", "refused", "reset"] {
            assert!(!lower.contains(word), "{word:?} in what it says:\n{said}");
        }
    }
    assert!(proxy.events(0, "switched").is_empty());
}
