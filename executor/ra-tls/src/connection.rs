//! An open connection: bytes both ways.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::NamedGroup;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::server::Admitted;

/// A stream whose handshake is over. On the worker's side it holds its place among the connections until it is dropped.
pub struct Connection<S> {
    stream: TlsStream<S>,
    session_key: Option<[u8; 32]>,
    _admitted: Option<Admitted>,
}

impl<S> Connection<S> {
    pub(crate) fn new(
        stream: TlsStream<S>,
        session_key: Option<[u8; 32]>,
        admitted: Option<Admitted>,
    ) -> Self {
        Self { stream, session_key, _admitted: admitted }
    }

    /// On the worker's side: the Ed25519 session key that the client proved to hold, where it showed one.
    pub fn session_key(&self) -> Option<[u8; 32]> {
        self.session_key
    }

    /// The key exchange of this connection.
    pub fn key_exchange(&self) -> Option<NamedGroup> {
        Some(self.stream.get_ref().1.negotiated_key_exchange_group()?.name())
    }

    /// 32 bytes that both sides of this connection have and nobody else (`tls-exporter`, RFC 9266): what is signed over
    /// them is of no use on another connection.
    ///
    /// # Errors
    /// What the TLS library says; none is known to happen.
    pub fn channel_binding(&self) -> Result<[u8; 32], rustls::Error> {
        let (label, context) = (b"EXPORTER-Channel-Binding", Some(&[][..]));
        match &self.stream {
            TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], label, context),
            TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], label, context),
        }
    }
}

impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
