//! Bare connections: mutual TLS and HTTP/2, and nothing of `common::rpc` around it, so that the client costs both sides of
//! a comparison the same, and little.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use common::identity::tls::Tls;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// A connection that is there already.
pub(crate) async fn connect(address: SocketAddr, tls: Arc<Tls>) -> Result<Channel> {
    let uri: Uri = format!("http://{address}").parse()?;
    let endpoint = Endpoint::from(uri)
        .connect_timeout(Duration::from_secs(5))
        .buffer_size(4096);
    let channel = endpoint.connect_with_connector(tower::service_fn(move |_: Uri| {
        let tls = Arc::clone(&tls);
        async move { shake_hands(address, &tls).await.map(TokioIo::new) }
    }));
    Ok(channel.await?)
}

async fn shake_hands(address: SocketAddr, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(address.ip().to_string()).map_err(io::Error::other)?;
    TlsConnector::from(tls.client()).connect(name, stream).await
}
