//! Who holds a port that is taken: best effort, from `/proc`; processes of other users show only to root.

use std::fmt;
use std::fs;

/// State column of a listening socket in `/proc/net/tcp` (`TCP_LISTEN` of the kernel's `tcp_states.h`).
const LISTEN: &str = "0A";
/// Most processes looked at.
const PROCESS_LIMIT: usize = 65_536;

/// A process that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name as `ps` shows it.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name.escape_default(), self.pid)
    }
}

/// The process that listens on this TCP port, where that can be known.
pub(super) fn of_port(port: u16) -> Option<Holder> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| socket_links(&table, port))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .take(PROCESS_LIMIT)
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid| has_any(*pid, &sockets))
        .map(|pid| Holder {
            pid,
            name: fs::read_to_string(format!("/proc/{pid}/comm"))
                .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned()),
        })
}

/// What links in `/proc/*/fd` to a listening socket of this port look like.
fn socket_links(table: &str, port: u16) -> Vec<String> {
    listening_inodes(table, port)
        .into_iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect()
}

/// Columns (proc(5)): number, local address:port in hex, remote, state, ..., inode as the tenth.
fn listening_inodes(table: &str, port: u16) -> Vec<&str> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
            let (_, local) = columns.get(1)?.rsplit_once(':')?;
            let same = u16::from_str_radix(local, 16).ok()? == port;
            (same && *columns.get(3)? == LISTEN).then_some(*columns.get(9)?)
        })
        .collect()
}

fn has_any(pid: u32, sockets: &[String]) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|files| {
        files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| {
                sockets
                    .iter()
                    .any(|socket| target.as_os_str() == socket.as_str())
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0\n\
             1: 0100007F:18EB 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0\n\
             2: 0100007F:18EC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0\n\
             garbage\n";
        assert_eq!(listening_inodes(table, 6379), ["111"]);
    }

    #[test]
    fn this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("addr").port();
        assert_eq!(
            of_port(port).map(|holder| holder.pid),
            Some(std::process::id())
        );
    }
}
