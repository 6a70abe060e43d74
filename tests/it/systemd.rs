//! What a service manager is told, and what it hands over.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{self, Client, Driver, Server, both_drivers, command, post, wait_until};

both_drivers!(
    the_manager_is_told,
    the_watchdog_is_fed,
    a_restart_with_inherited_sockets_refuses_nothing,
    what_is_no_listener_stops_the_start,
);

/// The other end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn listen(path: &Path) -> Manager {
        let socket = UnixDatagram::bind(path).expect("the socket is bound");
        let patience = socket.set_read_timeout(Some(support::PATIENCE));
        patience.expect("the socket takes a timeout");
        Manager {
            socket,
            heard: Vec::new(),
        }
    }

    /// The next message that has this line.
    #[track_caller]
    fn wait_for(&mut self, line: &str) -> String {
        let mut bytes = [0; 4096];
        loop {
            let count = self.socket.recv(&mut bytes);
            let count =
                count.unwrap_or_else(|error| panic!("no {line}: {error}, {:?}", self.heard));
            let message = String::from_utf8(bytes[..count].to_vec()).expect("text");
            self.heard.push(message.clone());
            if message.lines().any(|found| found == line) {
                return message;
            }
        }
    }
}

fn the_manager_is_told(driver: Driver) {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("notify");
    let mut manager = Manager::listen(&path);
    let path = path.to_str().expect("its path is text");
    let mut server = Server::start(driver, &[("NOTIFY_SOCKET", path)]);
    let ready = manager.wait_for("READY=1");
    let name = driver.name();
    let status = format!("STATUS=accepting reports on 2 cores ({name})");
    assert!(ready.lines().any(|line| line == status), "{ready}");
    server.signal(Signal::HUP);
    let reloading = manager.wait_for("RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    manager.wait_for("READY=1");
    assert_eq!(server.stop().code(), Some(0));
    let stopping = manager.wait_for("STOPPING=1");
    assert!(stopping.contains("STATUS=draining\n"), "{stopping}");
    assert!(
        manager
            .heard
            .iter()
            .all(|message| !message.contains("WATCHDOG"))
    );
}

fn the_watchdog_is_fed(driver: Driver) {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("notify");
    let mut manager = Manager::listen(&path);
    let path = path.to_str().expect("its path is text");
    // A period of half a second.
    let settings = [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "2000000")];
    let server = Server::start(driver, &settings);
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    drop(server);
}

/// A command that runs the server with this socket as the one that a service manager hands over.
fn with_socket(server: &Command, socket: TcpListener) -> Command {
    let mut shell = Command::new("sh");
    shell.env_clear();
    // LISTEN_PID is the shell's, which the server takes over.
    shell.args([
        "-c",
        "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"",
        "sh",
    ]);
    shell.arg(server.get_program()).args(server.get_args());
    shell.stdin(Stdio::from(OwnedFd::from(socket)));
    shell
}

fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

/// Clients post without a break, each time on a new connection or until the server ends the old one.
fn a_restart_with_inherited_sockets_refuses_nothing(driver: Driver) {
    const CLIENTS: usize = 8;
    const RESTARTS: usize = 3;
    let dir = TempDir::new().expect("a directory");
    let (held, address) = socket();
    let start = || {
        let handed = held.try_clone().expect("the socket is doubled");
        Server::start_in_with(driver, dir.path(), &[], |server| {
            with_socket(server, handed)
        })
    };
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let report = |id: &str| format!(r#"{{"clientId":"{id}","timestamp":"t","hosts":[]}}"#);
    thread::scope(|scope| {
        let (is_over, answered) = (&is_over, &answered);
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut connection = None;
                for round in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut open: Client = connection
                        .take()
                        .unwrap_or_else(|| Client::connect(address).expect("nobody is refused"));
                    let body = report(&format!("{client}-{round}"));
                    let answer = open.exchange(&post(body.as_bytes()));
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    answered.fetch_add(1, Ordering::Relaxed);
                    // Half of them connect anew each time.
                    if client % 2 == 0 && answer.keeps_connection() {
                        connection = Some(open);
                    }
                }
            });
        }
        let mut server = start();
        assert_eq!(server.address(), address);
        for _ in 0..RESTARTS {
            let before = answered.load(Ordering::Relaxed);
            wait_until("clients are served", || {
                answered.load(Ordering::Relaxed) > before + 200
            });
            assert_eq!(server.stop().code(), Some(0));
            server = start();
        }
        let before = answered.load(Ordering::Relaxed);
        wait_until("clients are served by the last one", || {
            answered.load(Ordering::Relaxed) > before + 200
        });
        is_over.store(true, Ordering::Relaxed);
        // The server is needed until the last client has its answer.
        wait_until("clients have ended", || {
            server.metrics().sum(&["netwatch_open_connections"]) == 0
        });
        assert_eq!(server.stop().code(), Some(0));
    });
    let stored = support::lines(dir.path());
    assert_eq!(stored.len(), answered.load(Ordering::Relaxed));
}

fn what_is_no_listener_stops_the_start(driver: Driver) {
    let null = std::fs::File::open("/dev/null").expect("it is there");
    let mut shell = Command::new("sh");
    shell.env_clear().envs(driver.env().iter().copied());
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/config");
    shell.env("XDG_CONFIG_HOME", config);
    shell.args([
        "-c",
        "exec 3<&0; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"",
        "sh",
    ]);
    shell.arg(command().get_program());
    let output = shell.stdin(null).output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("text");
    let expected =
        "netwatch-server: cannot take over the sockets of LISTEN_FDS: fd 3 is not a socket\n";
    assert_eq!(said, expected);
}
