//! What libraries make by themselves of a connection that is closed without an answer, and of the proxy's `-LOADING`: the table of
//! `docs/clients/README.md`, held against a server that does the one or the other to the first INCRs.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::harness::application::{node_modules, python};

const PAGE: &str = "docs/clients/README.md";
const LOADING: &str =
    "-LOADING switchmaster: no verified master for 15000 ms, command not executed\r\n";
/// RESP3, for those that ask for it.
const HELLO: &str = "%3\r\n+server\r\n+redis\r\n+version\r\n+7.0.15\r\n+proto\r\n:3\r\n";
const AGAIN: &str = "sent again";

/// What happens to the first INCR.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Closed,
    Loading,
}

/// A server that counts INCRs. It ends with the process: its clients are gone before.
fn server(fate: Fate) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let counted = Arc::clone(&counted);
            // A client that leaves is an end like any other.
            thread::spawn(move || serve(stream, fate, &counted).ok());
        }
    });
    (port, asked)
}

fn serve(stream: TcpStream, fate: Fate, asked: &AtomicUsize) -> std::io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut replies = stream;
    while let Some(words) = request(&mut requests)? {
        let reply = match words[0].to_ascii_uppercase().as_str() {
            "INCR" | "INCRBY" => match (fate, asked.fetch_add(1, Ordering::SeqCst)) {
                (Fate::Closed, 0) => return replies.shutdown(Shutdown::Both),
                (Fate::Loading, 0) => LOADING,
                _ => ":1\r\n",
            },
            "HELLO" => HELLO,
            "INFO" => "$9\r\nloading:0\r\n",
            _ => "+OK\r\n",
        };
        replies.write_all(reply.as_bytes())?;
    }
    Ok(())
}

fn request(from: &mut impl BufRead) -> std::io::Result<Option<Vec<String>>> {
    let mut number = || -> std::io::Result<Option<usize>> {
        let mut line = String::new();
        from.read_line(&mut line)?;
        Ok(line.get(1..).and_then(|number| number.trim().parse().ok()))
    };
    let Some(count) = number()? else {
        return Ok(None);
    };
    let mut words = Vec::new();
    for _ in 0..count {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let length: usize = line[1..].trim().parse().expect("a length");
        let mut word = vec![0; length + 2];
        from.read_exact(&mut word)?;
        words.push(String::from_utf8_lossy(&word[..length]).into_owned());
    }
    Ok(Some(words))
}

/// Library, and what becomes of the two.
fn table() -> Vec<[String; 3]> {
    let text = fs::read_to_string(PAGE).expect("the page");
    let (_, rest) = text
        .split_once("| library | connection closed without an answer |")
        .expect("the table");
    let rows = rest
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        let cells: Vec<String> = cells.map(|cell| cell.trim().replace('`', "")).collect();
        <[String; 3]>::try_from(cells).expect("three cells")
    })
    .collect()
}

#[test]
fn libraries_repeat_what_the_page_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/pages");
    std::os::unix::fs::symlink(node_modules(), folder.path().join("node_modules")).expect("a link");
    fs::copy(pages.join("incr.mjs"), folder.path().join("incr.mjs")).expect("copied");
    let python = python();
    let table = table();
    assert!(table.len() >= 7, "{table:?}");
    for [library, closed, loading] in table {
        let (interpreter, folder, file) = match library.split([' ', ',']).next() {
            Some("redis-py") => (python.as_str(), pages.as_path(), "incr.py"),
            Some("phpredis" | "Predis") => ("php", pages.as_path(), "incr.php"),
            Some("redis-rb") => ("ruby", pages.as_path(), "incr.rb"),
            Some("ioredis" | "node-redis") => ("node", folder.path(), "incr.mjs"),
            other => panic!("nothing here has {other:?}"),
        };
        for (fate, expected) in [(Fate::Closed, closed), (Fate::Loading, loading)] {
            let (port, asked) = server(fate);
            let output = Command::new(interpreter)
                .arg(folder.join(file))
                .args([&port.to_string(), &library])
                .output()
                .expect("it starts");
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let told = String::from_utf8_lossy(&output.stderr);
            let repeated = asked.load(Ordering::SeqCst) == 2 && said == "1";
            let seen = if repeated { AGAIN } else { said.as_str() };
            assert_eq!(seen, expected, "{library}, {fate:?}: {told}");
        }
    }
}
