//! The public sockets: bound here, one for each core and address, or handed over by the service manager.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use super::RunError;
use crate::config::{Config, Source};
use crate::rt::net::{Owner, Share, adopt_listener, bind_listener};

/// How often a port in use is tried, and the time between two tries.
const PORT_TRIES: u32 = 100;
const PORT_PAUSE: Duration = Duration::from_millis(10);

/// The public sockets.
pub(super) struct Sockets {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) by_core: Vec<Vec<TcpListener>>,
    pub(super) owner: Owner,
}

/// Takes over the sockets of the service manager, in place of any address of the settings. Each belongs to
/// one core; cores that are left over share.
pub(super) fn take_over(inherited: Vec<TcpListener>, cores: usize) -> io::Result<Sockets> {
    let mut addresses = Vec::new();
    let mut by_core: Vec<Vec<TcpListener>> = (0..cores).map(|_| Vec::new()).collect();
    for listener in &inherited {
        adopt_listener(listener)?;
        let address = listener.local_addr()?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    // A core without a socket for an address shares another's: of every address each core has one.
    for address in &addresses {
        let mut sockets = Vec::new();
        for listener in &inherited {
            if listener.local_addr()? == *address {
                sockets.push(listener);
            }
        }
        for index in 0..cores.max(sockets.len()) {
            let socket = sockets[index % sockets.len()].try_clone()?;
            by_core[index % cores].push(socket);
        }
    }
    Ok(Sockets {
        addresses,
        by_core,
        owner: Owner::ServiceManager,
    })
}

/// Binds every address once per core.
pub(super) fn bind_all(config: &Config, cores: usize) -> Result<Sockets, RunError> {
    let mut sockets = Sockets {
        addresses: Vec::new(),
        by_core: (0..cores).map(|_| Vec::new()).collect(),
        owner: Owner::Server,
    };
    let mut port = config.port;
    for &ip in &config.host.addresses {
        match bind_address(SocketAddr::new(ip, port), &mut sockets.by_core) {
            Ok(address) => {
                // Port 0 is decided once, for all addresses.
                port = address.port();
                sockets.addresses.push(address);
            }
            Err(error) if config.host.source == Source::Default && is_absent(ip, &error) => {
                let cause = error.to_string();
                tracing::warn!(address = %ip, cause, "address family is not there");
            }
            Err(source) => {
                let address = SocketAddr::new(ip, port);
                return Err(RunError::Bind { address, source });
            }
        }
    }
    match sockets.addresses.is_empty() {
        true => Err(RunError::NoAddress),
        false => Ok(sockets),
    }
}

fn is_absent(ip: IpAddr, error: &io::Error) -> bool {
    let no_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    let absent = error.kind() == io::ErrorKind::AddrNotAvailable;
    ip.is_ipv6() && (absent || error.raw_os_error() == Some(no_family))
}

fn bind_address(address: SocketAddr, by_core: &mut [Vec<TcpListener>]) -> io::Result<SocketAddr> {
    if address.port() != 0 {
        // A stranger that shares its port as well would silently take half of the connections.
        drop(bind_alone(address)?);
    }
    let mut address = address;
    for listeners in by_core {
        let listener = bind_listener(address, Share::WithOtherCores)?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(address)
}

/// Binds an address for one listener of its own.
///
/// # Errors
///
/// The address cannot be had.
pub(super) fn bind_alone(address: SocketAddr) -> io::Result<TcpListener> {
    bind_when_free(address, || thread::sleep(PORT_PAUSE))
}

/// Binds an address that may be about to be free: after a process was killed, the kernel takes down its
/// rings, and with them the listeners they waited for, some milliseconds after the process has gone.
fn bind_when_free(address: SocketAddr, mut pause: impl FnMut()) -> io::Result<TcpListener> {
    for _ in 1..PORT_TRIES {
        match bind_listener(address, Share::Alone) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => pause(),
            result => return result,
        }
    }
    bind_listener(address, Share::Alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_waited_for_but_not_for_ever() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let holder = bind_listener(address, Share::Alone).expect("binds");
        let address = holder.local_addr().expect("is bound");
        let mut pauses = 0;
        let error = bind_when_free(address, || pauses += 1).expect_err("is in use");
        assert_eq!(
            (error.kind(), pauses),
            (io::ErrorKind::AddrInUse, PORT_TRIES - 1)
        );
        let mut holder = Some(holder);
        bind_when_free(address, || drop(holder.take())).expect("is free after a pause");
    }

    #[test]
    fn every_socket_has_a_core_and_every_core_a_socket() {
        #[track_caller]
        fn check(sockets: [usize; 2], cores: usize, expected: &[usize]) {
            let mut inherited = Vec::new();
            for count in sockets {
                let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
                for _ in 0..count {
                    let listener = bind_listener(address, Share::WithOtherCores).expect("binds");
                    address = listener.local_addr().expect("is bound");
                    inherited.push(listener);
                }
            }
            let taken = take_over(inherited, cores).expect("these are listeners");
            let counts: Vec<usize> = taken.by_core.iter().map(Vec::len).collect();
            assert_eq!(counts, expected);
            let used = sockets.iter().filter(|&&count| count > 0).count();
            assert_eq!(taken.addresses.len(), used);
        }
        check([1, 0], 1, &[1]);
        check([1, 0], 3, &[1, 1, 1]);
        check([1, 1], 2, &[2, 2]);
        check([3, 0], 2, &[2, 1]);
        check([2, 1], 4, &[2, 2, 2, 2]);
    }
}
