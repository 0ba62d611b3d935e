//! A listener that follows a script.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::Deps;
use egress::{Egress, EgressConfig, Resolve, Url};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What the server does once it has read a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Writes this, and waits for the next request.
    Write(Vec<u8>),
    /// Writes this, and closes.
    WriteAndClose(Vec<u8>),
    /// Writes this, and nothing after it, without closing.
    WriteAndHang(Vec<u8>),
}

/// A server on a free port of 127.0.0.1.
pub(crate) struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: mpsc::UnboundedReceiver<String>,
}

impl Server {
    /// Answers each request with the next act; the last one is repeated.
    pub(crate) async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let next = Arc::new(AtomicUsize::new(0));
        let (seen, requests) = mpsc::unbounded_channel();
        let accepted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, acts.clone(), Arc::clone(&next), seen.clone()));
            }
        });
        Self {
            address,
            connections,
            requests,
        }
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).expect("a URL")
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The next request as it came over the wire.
    pub(crate) async fn request(&mut self) -> String {
        self.requests.recv().await.expect("a request came")
    }

    /// Whether there has been no (further) request.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

async fn serve(
    mut stream: TcpStream,
    acts: Vec<Act>,
    next: Arc<AtomicUsize>,
    seen: mpsc::UnboundedSender<String>,
) -> Option<()> {
    loop {
        let request = read_request(&mut stream).await?;
        // Whoever made the server may have gone.
        let _ = seen.send(request);
        let act = &acts[next.fetch_add(1, Ordering::SeqCst).min(acts.len() - 1)];
        match act {
            Act::Write(bytes) => stream.write_all(bytes).await.ok()?,
            Act::WriteAndClose(bytes) => {
                stream.write_all(bytes).await.ok()?;
                stream.shutdown().await.ok()?;
                return None;
            }
            Act::WriteAndHang(bytes) => {
                stream.write_all(bytes).await.ok()?;
                // Until the client closes.
                let _ = stream.read(&mut [0]).await;
                return None;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = head_end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| {
                    length.trim().parse::<usize>().expect("a length")
                });
            if bytes.len() >= end + 4 + length {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A whole answer with status 200.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A client as `hawser up` has it.
pub(crate) fn client() -> Egress {
    client_with(EgressConfig {
        allow_loopback_http: true,
        ..EgressConfig::default()
    })
}

pub(crate) fn client_with(config: EgressConfig) -> Egress {
    Egress::new(config, &Deps::system("test")).expect("a client")
}

/// Answers every name with the same addresses, and counts how often it was asked.
#[derive(Debug, Default)]
pub(crate) struct Fixed {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) asked: AtomicUsize,
}

impl Resolve for Fixed {
    fn resolve(
        &self,
        _: String,
    ) -> futures::future::BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let addresses = self.addresses.clone();
        Box::pin(async move { Ok(addresses) })
    }
}
