//! The floor: a server with the vault's TLS and a message of the same size, and nothing else of the vault's.
//!
//! It answers `GetCredential`, so that the same client calls both: the handler takes the grant's id and a token of the same
//! length from the request, and asks nobody.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use common::Deps;
use common::identity::Identity;
use common::identity::authority::Authority;
use common::identity::tls::Tls;
use contracts::vault::v1::{GetCredentialRequest, GetCredentialResponse};
use futures::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{NamedService, UnaryService};
use tower::Service;

use crate::credentials::expected_answer;

/// In the folder of certificates: where the echo listens.
pub(crate) const ADDRESS_FILE: &str = "echo.address";

#[derive(Clone)]
struct Echo;

/// Serves with the certificates in `folder`, until it is killed.
pub(crate) async fn serve(folder: &Path) -> Result<()> {
    let address: SocketAddr = std::fs::read_to_string(folder.join(ADDRESS_FILE))?
        .parse()
        .context("the file holds an address")?;
    let deps = Deps::system("echo");
    let certificate =
        Authority::open(folder, &deps)?.issue(&Identity::service("token-vault"), &[])?;
    let tls = Tls::load(&certificate, Arc::clone(&deps.clock))?;
    let listener = TcpListener::bind(address).await?;
    let (connections, incoming) = mpsc::channel(64);
    tokio::spawn(accept(listener, tls, connections));
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(Echo)
        .serve_with_incoming(ReceiverStream::new(incoming))
        .await?;
    Ok(())
}

async fn accept(
    listener: TcpListener,
    tls: Arc<Tls>,
    connections: mpsc::Sender<std::io::Result<TlsStream<TcpStream>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        // Whoever only looks whether somebody listens shakes no hands.
        if let Ok(stream) = TlsAcceptor::from(tls.server()).accept(stream).await {
            drop(connections.send(Ok(stream)).await);
        }
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "hawser.vault.v1.TokenVaultService";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(Self, request).await)
        })
    }
}

impl UnaryService<GetCredentialRequest> for Echo {
    type Response = GetCredentialResponse;
    type Future = Ready<Result<tonic::Response<GetCredentialResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<GetCredentialRequest>) -> Self::Future {
        let answer = expected_answer(&request.get_ref().grant_id);
        ready(Ok(tonic::Response::new(answer)))
    }
}
