//! A stop loses nothing: who got a request in gets its answer, and every 2xx is in a sealed file.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    self, Client, Driver, PATIENCE, Server, both_drivers, open, post, sealed, wait_until,
};

both_drivers!(
    no_answer_is_lost_under_load,
    a_request_that_has_begun_is_answered,
    requests_behind_the_one_being_read_are_answered,
    connections_that_nobody_has_accepted_are_answered,
    idle_connections_are_closed,
    a_client_that_hangs_is_cut_off_in_time,
    a_second_signal_ends_it_at_once,
);

const OK: (u16, &str) = (200, "{\"status\":\"ok\"}\n");

/// Longer than any test waits.
const NEVER: &str = "5m";

fn report(client_id: &str) -> String {
    format!(r#"{{"clientId":"{client_id}","timestamp":"t","hosts":[]}}"#)
}

/// The client ids of all sealed lines; panics if one is there twice or a segment is not sealed.
#[track_caller]
fn stored(server: &Server) -> BTreeSet<String> {
    assert_eq!(open(server.dir()), []);
    let mut ids = BTreeSet::new();
    for line in support::lines(server.dir()) {
        let id = line.split("\"clientId\":\"").nth(1);
        let id = id.and_then(|rest| rest.split('"').next());
        let is_new = ids.insert(id.expect("a line has a client").to_owned());
        assert!(is_new, "twice: {line}");
    }
    ids
}

/// Posts one report after the other until the server says that it was the last. The ids of all that
/// were posted, each of which was answered.
fn post_until_closed(server: &Server, client: usize, answered: &AtomicUsize) -> Vec<String> {
    let mut connection = server.connect();
    let mut ids = Vec::new();
    loop {
        let id = format!("{client}-{}", ids.len());
        let answer = connection.exchange(&post(report(&id).as_bytes()));
        assert_eq!((answer.status, answer.text()), OK);
        ids.push(id);
        answered.fetch_add(1, Ordering::Relaxed);
        if !answer.keeps_connection() {
            connection.expect_closed();
            return ids;
        }
    }
}

fn no_answer_is_lost_under_load(driver: Driver) {
    for ack in ["durable", "written", "buffered"] {
        // Small segments: some are being sealed at any time.
        let settings = [("ACK", ack), ("FLUSH_BYTES", "4KiB")];
        let mut server = Server::start(driver, &settings);
        let answered = AtomicUsize::new(0);
        let posted = thread::scope(|scope| {
            let (server, answered) = (&server, &answered);
            let clients = (0..16)
                .map(|client| scope.spawn(move || post_until_closed(server, client, answered)));
            let clients: Vec<_> = clients.collect();
            wait_until("clients are answered", || {
                answered.load(Ordering::Relaxed) >= 500
            });
            server.signal(Signal::TERM);
            let ids = clients.into_iter().map(|client| client.join());
            let ids = ids.map(|ids| ids.expect("every request is answered"));
            ids.flatten().collect::<BTreeSet<String>>()
        });
        assert_eq!(server.wait().code(), Some(0));
        assert_eq!(stored(&server), posted, "{ack}");
        assert!(sealed(server.dir()).len() > 2);
        server.wait_for_event("stopped");
    }
}

/// A connection that is being served, not only queued by the kernel.
#[track_caller]
fn served(server: &Server) -> Client {
    let mut client = server.connect();
    client.expect_kept();
    client
}

fn a_request_that_has_begun_is_answered(driver: Driver) {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(driver, &[("SHUTDOWN_SECS", NEVER)]);
        let invited = "POST /api/v1/reports HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n";
        let invited = format!(
            "{invited}Content-Length: {}\r\n\r\n",
            report("invited").len()
        );
        // In the head, in the body, and before a body that was asked for.
        let mut parts = Vec::new();
        for (id, sent) in [("head", 10), ("body", 100)] {
            let mut client = served(&server);
            let request = post(report(id).as_bytes());
            client.send(&request[..sent]).expect("the part is taken");
            parts.push((client, request[sent..].to_vec()));
        }
        let mut client = served(&server);
        assert_eq!(client.exchange(invited.as_bytes()).status, 100);
        parts.push((client, report("invited").into_bytes()));

        server.signal(signal);
        server.wait_until_draining();
        for (client, _) in &mut parts {
            let has_bytes = client.has_bytes_within(Duration::from_millis(500));
            assert!(!has_bytes, "nothing is answered before it is asked");
        }
        for (client, rest) in &mut parts {
            let answer = client.exchange(rest);
            assert_eq!((answer.status, answer.text()), OK);
            assert!(!answer.keeps_connection());
            client.expect_closed();
        }
        assert_eq!(server.wait().code(), Some(0));
        let expected = ["head", "body", "invited"].map(str::to_owned);
        assert_eq!(stored(&server), BTreeSet::from(expected));
    }
}

/// A drain ends a connection at the last request that its client has sent, not at the next.
fn requests_behind_the_one_being_read_are_answered(driver: Driver) {
    for behind in [1, 2, 10] {
        let mut server = Server::start(driver, &[("SHUTDOWN_SECS", NEVER)]);
        let ids: Vec<String> = (0..=behind).map(|index| index.to_string()).collect();
        let requests: Vec<u8> = ids
            .iter()
            .flat_map(|id| post(report(id).as_bytes()))
            .collect();
        let mut client = served(&server);
        client.send(&requests[..100]).expect("the part is taken");
        server.signal(Signal::TERM);
        server.wait_until_draining();
        client.send(&requests[100..]).expect("the rest is taken");
        for id in &ids {
            let answer = client.answer();
            assert_eq!((answer.status, answer.text()), OK);
            let is_last = id == &ids[behind];
            assert_eq!(answer.keeps_connection(), !is_last, "{id} of {behind}");
        }
        client.expect_closed();
        assert_eq!(server.wait().code(), Some(0));
        assert_eq!(stored(&server), BTreeSet::from_iter(ids));
    }
}

/// The kernel completes connections and takes requests for a process that does not run.
fn connections_that_nobody_has_accepted_are_answered(driver: Driver) {
    let mut server = Server::start(driver, &[]);
    server.signal(Signal::STOP);
    let clients: Vec<Client> = (0..32)
        .map(|index| {
            let mut client = server.connect();
            let request = post(report(&index.to_string()).as_bytes());
            client.send(&request).expect("the kernel takes it");
            client
        })
        .collect();
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    for mut client in clients {
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), OK);
        client.expect_closed();
    }
    assert_eq!(server.wait().code(), Some(0));
    let expected = (0..32).map(|index| index.to_string());
    assert_eq!(stored(&server), expected.collect());
}

fn idle_connections_are_closed(driver: Driver) {
    let settings = [("SHUTDOWN_SECS", NEVER), ("IDLE_SECS", NEVER)];
    let mut server = Server::start(driver, &settings);
    let mut never_used = server.connect();
    let mut idle = served(&server);
    let began = Instant::now();
    server.signal(Signal::TERM);
    never_used.expect_closed();
    idle.expect_closed();
    assert_eq!(server.wait().code(), Some(0));
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(stored(&server), BTreeSet::new());
}

/// Every deadline but this one is far away.
fn a_client_that_hangs_is_cut_off_in_time(driver: Driver) {
    for (shutdown_secs, at_least_ms) in [("0", 0), ("1", 900)] {
        let settings = [("SHUTDOWN_SECS", shutdown_secs), ("BODY_SECS", NEVER)];
        let mut server = Server::start(driver, &settings);
        let answer = server.connect().exchange(&post(report("c").as_bytes()));
        assert_eq!((answer.status, answer.text()), OK);
        let mut hanging = served(&server);
        let request = post(report("half").as_bytes());
        let sent = &request[..request.len() - 1];
        hanging.send(sent).expect("the part is taken");
        let began = Instant::now();
        server.signal(Signal::TERM);
        // Without an answer: the client cannot tell what became of its request, and asks again.
        assert!(!matches!(hanging.try_answer(), Ok(Some(_))));
        assert_eq!(server.wait().code(), Some(0));
        let elapsed = began.elapsed();
        let bounds = Duration::from_millis(at_least_ms)..PATIENCE;
        assert!(bounds.contains(&elapsed), "{elapsed:?}");
        assert_eq!(server.wait_for_event("connections cut off")["count"], 1);
        assert_eq!(stored(&server), BTreeSet::from(["c".to_owned()]));
    }
}

fn a_second_signal_ends_it_at_once(driver: Driver) {
    for second in [Signal::TERM, Signal::INT] {
        // On one core, which the hanging client keeps from sealing.
        let settings = [
            ("SHUTDOWN_SECS", NEVER),
            ("BODY_SECS", NEVER),
            ("WORKERS", "1"),
        ];
        let mut server = Server::start(driver, &settings);
        let answer = server.connect().exchange(&post(report("c").as_bytes()));
        assert_eq!((answer.status, answer.text()), OK);
        let mut hanging = served(&server);
        let request = post(report("half").as_bytes());
        let sent = &request[..request.len() - 1];
        hanging.send(sent).expect("the part is taken");
        server.signal(Signal::TERM);
        server.wait_until_draining();
        assert!(server.is_running());
        server.signal(second);
        let status = server.wait();
        assert_eq!((status.code(), status.signal()), (Some(1), None));

        // What was answered is there, and the next start seals it.
        assert_eq!(open(server.dir()).len(), 1);
        let mut next = Server::start_in(driver, server.dir(), &[]);
        assert_eq!(next.stop().code(), Some(0));
        assert_eq!(stored(&next), BTreeSet::from(["c".to_owned()]));
    }
}
