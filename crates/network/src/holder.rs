//! Who holds a port of the host: for the words of a refusal, so read only after the kernel has said no.
//! Source: kernel Documentation/networking/proc_net_tcp.rst.

use model::Protocol;
use std::{fs, path::Path};

/// State of a TCP socket that waits for connections.
const LISTENING: &str = "0A";

/// Names the program that has the port, with its process id; `None` when no process to be seen has it.
pub(crate) fn of_port(protocol: Protocol, port: u16) -> Option<String> {
    let tables = match protocol {
        Protocol::Tcp => ["tcp", "tcp6"],
        Protocol::Udp => ["udp", "udp6"],
        Protocol::Sctp => return None,
    };
    // Of the thread's own namespace, which need not be the process's.
    let read = |table: &str| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    let inodes: Vec<u64> =
        tables.iter().flat_map(|table| sockets(&read(table), port, protocol == Protocol::Tcp)).collect();
    let names: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    processes.filter(|process| has_one(process, &names)).find_map(|process| describe(&process))
}

/// Inodes of the sockets on a port that a table of /proc/net lists.
fn sockets(table: &str, port: u16, listening_only: bool) -> Vec<u64> {
    let wanted = format!(":{port:04X}");
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let fits = fields.get(1)?.ends_with(&wanted) && (!listening_only || *fields.get(3)? == LISTENING);
        if fits { fields.get(9)?.parse().ok() } else { None }
    };
    table.lines().skip(1).filter_map(socket).collect()
}

fn has_one(process: &Path, sockets: &[String]) -> bool {
    // Not a process, gone, or not ours to look into.
    let Ok(open) = fs::read_dir(process.join("fd")) else { return false };
    open.flatten().any(|file| {
        fs::read_link(file.path()).is_ok_and(|to| sockets.iter().any(|s| to.as_os_str() == s.as_str()))
    })
}

fn describe(process: &Path) -> Option<String> {
    let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
    if pid == std::process::id() {
        return Some(format!("rswarm itself, process {pid}"));
    }
    let name = fs::read_to_string(process.join("comm")).ok()?;
    Some(format!("{}, process {pid}", name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_from_a_connection_of_the_same_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 812 1 0\n\
             1: 0B00A8C0:0016 0C00A8C0:D431 01 00000000:00000000 00:00000000 00000000     0        0 913 1 0\n\
             2: 00000000:1600 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 914 1 0\n";
        assert_eq!(sockets(table, 22, true), [812]);
        assert_eq!(sockets(table, 22, false), [812, 913]);
    }

    #[test]
    fn the_process_that_listens_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = of_port(Protocol::Tcp, port).unwrap();
        assert_eq!(holder, format!("rswarm itself, process {}", std::process::id()));
        assert_eq!(of_port(Protocol::Udp, port), None);
    }
}
