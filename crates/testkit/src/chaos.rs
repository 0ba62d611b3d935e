//! A TCP proxy that fails on demand: silent, cut off, or reset.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy in front of one address. It ends with this value, and its connections with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    round_trips: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Stall,
    Cut,
    Reset,
}

impl Proxy {
    /// Listens on a free port, and passes everything on.
    ///
    /// # Panics
    /// Where the machine has no port to give.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (mode, watched) = watch::channel(Mode::Pass);
        let round_trips = Arc::new(AtomicUsize::new(0));
        tokio::spawn(listen(
            listener,
            upstream,
            watched,
            Arc::clone(&round_trips),
        ));
        Self {
            address,
            mode,
            round_trips,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All is well again.
    pub fn pass(&self) {
        self.mode.send_replace(Mode::Pass);
    }

    /// Nothing gets through, and nobody is told: a frozen peer, a dropped route. What was held goes on with [`Proxy::pass`].
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stall);
    }

    /// Connections end in order, new ones at once: a peer that has stopped.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Connections are reset, new ones too: a peer that has crashed.
    pub fn reset(&self) {
        self.mode.send_replace(Mode::Reset);
    }

    /// How often a client has spoken first or after the server did, over all connections.
    pub fn round_trips(&self) -> usize {
        self.round_trips.load(Ordering::SeqCst)
    }
}

async fn listen(
    listener: TcpListener,
    upstream: SocketAddr,
    mode: watch::Receiver<Mode>,
    round_trips: Arc<AtomicUsize>,
) {
    let mut ended = mode.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                tokio::spawn(connect(client, upstream, mode.clone(), Arc::clone(&round_trips)));
            }
            () = closed(&mut ended) => return,
        }
    }
}

async fn closed(mode: &mut watch::Receiver<Mode>) {
    while mode.changed().await.is_ok() {}
}

async fn connect(
    mut client: TcpStream,
    upstream: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    round_trips: Arc<AtomicUsize>,
) {
    let now = *mode.borrow_and_update();
    if now == Mode::Reset {
        let _ = client.set_zero_linger();
    }
    if matches!(now, Mode::Cut | Mode::Reset) {
        return;
    }
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let server_spoke = AtomicBool::new(true);
    // Borrowed halves: owned ones would end the connection in order when they are dropped.
    let (client_in, client_out) = client.split();
    let (server_in, server_out) = server.split();
    let up = copy(client_in, server_out, mode.clone(), || {
        if server_spoke.swap(false, Ordering::SeqCst) {
            round_trips.fetch_add(1, Ordering::SeqCst);
        }
    });
    let down = copy(server_in, client_out, mode.clone(), || {
        server_spoke.store(true, Ordering::SeqCst);
    });
    // When one side ends, so does the other.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
    if *mode.borrow() == Mode::Reset {
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut mode: watch::Receiver<Mode>,
    spoke: impl Fn(),
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let now = *mode.borrow_and_update();
        match now {
            Mode::Pass => {}
            Mode::Cut | Mode::Reset => return,
            Mode::Stall => {
                if mode.changed().await.is_err() {
                    return;
                }
                continue;
            }
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = mode.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
        };
        let Ok(length @ 1..) = read else { return };
        spoke();
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
