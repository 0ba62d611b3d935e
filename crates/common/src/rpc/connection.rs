//! A connection that was taken in: who is on its other side, found out once, and its calls.
//!
//! All calls of a connection run in the connection's own task: whatever is ready is run first, and then all answers leave
//! in one write. A task for each call would have them leave one by one, at a system call each, and wake threads between.
//! So a connection's handlers share a core; they wait for databases and other services far more than they compute.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, poll_fn};
use futures::stream::{FuturesUnordered, StreamExt as _};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use crate::identity::{Identity, tls};
use crate::lifecycle::Shutdown;

/// Who is on the other side. Stands in the extensions of each call.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// By its certificate, where it has presented one.
    pub(super) identity: Option<Identity>,
    pub(super) address: SocketAddr,
}

/// Calls that have come.
#[derive(Clone)]
struct Begun(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

/// The calls of a connection.
struct Calls {
    begun: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

const KEEPALIVE: Duration = Duration::from_secs(30);

impl Peer {
    /// After the handshake.
    pub(super) fn of(stream: &TlsStream<TcpStream>, address: SocketAddr) -> Self {
        let certificate = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first());
        Self {
            identity: certificate.and_then(tls::identity_of),
            address,
        }
    }
}

/// Serves the connection until its other side ends it; from a shutdown on it takes no more calls, and ends with the last.
pub(super) async fn serve<S>(
    stream: TlsStream<TcpStream>,
    peer: Peer,
    service: S,
    shutdown: Shutdown,
) -> hyper::Result<()>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let (sender, begun) = mpsc::unbounded_channel();
    let answer = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.clone().oneshot(request.map(Body::new))
    });
    let connection = http2::Builder::new(Begun(sender))
        .timer(TokioTimer::new())
        // There is a limit on calls in flight for the whole server.
        .max_concurrent_streams(None)
        .keep_alive_interval(KEEPALIVE)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    let mut calls = Calls {
        begun,
        running: FuturesUnordered::new(),
    };
    tokio::select! {
        biased;
        ended = poll_fn(|context| calls.poll(connection.as_mut(), context)) => return ended,
        () = shutdown.requested() => connection.as_mut().graceful_shutdown(),
    }
    poll_fn(|context| calls.poll(connection.as_mut(), context)).await
}

impl<F> Executor<F> for Begun
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        // A panic ends its own call, as it would in a task; handlers' are told of before they get here. The receiver
        // lives as long as the connection that calls this.
        let call = AssertUnwindSafe(call).catch_unwind().map(drop);
        let _ = self.0.send(Box::pin(call));
    }
}

impl Calls {
    /// Runs what can run, has the answers written, and takes in what has come.
    fn poll<C: Future>(
        &mut self,
        mut connection: Pin<&mut C>,
        context: &mut Context<'_>,
    ) -> Poll<C::Output> {
        self.take_on(context);
        loop {
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(context) {}
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            if !self.take_on(context) {
                return Poll::Pending;
            }
        }
    }

    /// Whether there were any. Where this task has had its share of its thread there seem to be none: it is woken again.
    fn take_on(&mut self, context: &mut Context<'_>) -> bool {
        let before = self.running.len();
        while let Poll::Ready(Some(call)) = self.begun.poll_recv(context) {
            self.running.push(call);
        }
        self.running.len() > before
    }
}
